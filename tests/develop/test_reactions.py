"""What changed files mean for the services of a development environment."""

from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.service_models import ChangeRule
from lyra_tasks.develop.reactions import Reaction, list_rules, plan_reactions


def profile(on_change: Any, context: str = "app", **dev: Any) -> Configuration:
    document = {
        "schema": 1,
        "project": {"name": "tiny"},
        "images": {"web": {"context": context}},
        "services": {"web": {"image": "web", "dev": {"on_change": on_change, **dev}}, "other": {"image": "web"}},
    }
    return Configuration.model_validate(document)


def reactions(on_change: Any, *changed: str, deleted: tuple[str, ...] = (), context: str = "app") -> Any:
    rules = list_rules(profile(on_change, context), ["web", "other"])
    return plan_reactions(rules, changed, deleted)


def web(**fields: Any) -> Reaction:
    defaults: dict[str, Any] = {
        "copies": (), "removals": (), "is_rebuilt": False, "is_restarted": False, "commands": (),
    }  # fmt: skip
    return Reaction("web", **defaults | fields)


@pytest.mark.parametrize(
    ("on_change", "reaction"),
    [
        ("restart", web(is_restarted=True)),
        ("rebuild", web(is_rebuilt=True)),
        (["make", "assets"], web(commands=(("make", "assets"),))),
    ],
)
def test_short_form_is_about_all_files_of_the_context(on_change: Any, reaction: Reaction) -> None:
    assert reactions(on_change, "app/main.py") == (reaction,)
    assert reactions(on_change, deleted=("app/deep/er.py",)) == (reaction,)
    assert reactions(on_change, "README.md", "application/x") == ()
    assert reactions(on_change, "main.py", context=".") == (reaction,)


def test_no_rule_and_sync_alone_lead_to_no_reaction() -> None:
    assert reactions(None, "app/main.py") == ()
    assert reactions([{"paths": ["app"], "action": "sync"}], "app/main.py") == ()


def test_each_matching_rule_applies_and_rebuild_includes_restart() -> None:
    rules = [
        {"paths": ["app/**/*.py"], "ignore": ["**/test_*.py"], "action": "restart"},
        {"paths": ["app/requirements.txt", "./app/Dockerfile"], "action": "rebuild"},
        {"paths": ["app/assets/"], "action": ["make"]},
    ]
    assert reactions(rules, "app/a.py", "app/b/c.py") == (web(is_restarted=True),)
    assert reactions(rules, "app/b/test_c.py") == ()
    assert reactions(rules, "app/assets/x.css", "app/b.py") == (web(is_restarted=True, commands=(("make",),)),)
    assert reactions(rules, "app/b.py", "app/Dockerfile") == (web(is_rebuilt=True),)


def test_equal_commands_run_once() -> None:
    rules = [{"paths": [path], "action": ["make"]} for path in ("app/a", "app/b")]
    assert reactions(rules, "app/a", "app/b") == (web(commands=(("make",),)),)


def test_target_stands_for_the_part_of_the_path_without_wildcards() -> None:
    rules = [
        {"paths": ["proxy/nginx.conf"], "action": "restart", "target": "/etc/nginx/conf.d/default.conf"},
        {"paths": ["web/**/*.js", "static"], "action": "sync", "target": "/srv/www"},
    ]
    assert reactions(rules, "proxy/nginx.conf") == (
        web(copies=(("proxy/nginx.conf", "/etc/nginx/conf.d/default.conf"),), is_restarted=True),
    )
    assert reactions(rules, "web/a/b.js", "static/c.css", deleted=("web/old.js",)) == (
        web(
            copies=(("web/a/b.js", "/srv/www/a/b.js"), ("static/c.css", "/srv/www/c.css")),
            removals=("/srv/www/old.js",),
        ),
    )


def test_rebuilt_service_gets_files_from_its_image() -> None:
    rules = [
        {"paths": ["app"], "action": "sync", "target": "/srv"},
        {"paths": ["app/Dockerfile"], "action": "rebuild"},
    ]
    assert reactions(rules, "app/Dockerfile", "app/x") == (web(is_rebuilt=True),)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("src/**/*.py", "src"), ("**", "."), (".", "."), ("./src/", "src"), ("/a/b*", "a"), ("a/b?/c", "a"),
        ("[ab]/x", "."), ("a b/c", "a b/c"),
    ],
)  # fmt: skip
def test_root_is_what_comes_before_wildcards(path: str, root: str) -> None:
    assert ChangeRule.model_validate({"paths": [path], "action": "sync"}).roots == (root,)
