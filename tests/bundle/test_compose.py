"""The Compose file, environment.json and .env.example of a bundle."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lyra_tasks.bundle.content.compose import build_compose_document, render_compose_file
from lyra_tasks.bundle.content.environment import (
    PromotedService,
    build_environment_document,
    render_env_example,
    select_promoted_services,
)
from lyra_tasks.bundle.content.operating import SET_VARIABLE_FUNCTIONS
from lyra_tasks.config.models import Configuration
from lyra_tasks.engine.sandbox import Sandbox

pytestmark = pytest.mark.slow

IMAGE = {"User": "10001:10001", "Env": ["PATH=/bin", "MODE=fast"]}


def services(tables: dict[str, Any], image: dict[str, Any] | None = None) -> tuple[PromotedService, ...]:
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "shop"}, "images": {"web": {"context": "."}}, "services": tables}
    )
    configs = dict.fromkeys(config.services, IMAGE if image is None else image)
    return select_promoted_services(config, {"web": "shop/web:1.0.0"}, configs)


def compose(tables: dict[str, Any], image: dict[str, Any] | None = None) -> dict[str, Any]:
    return build_compose_document("shop", services(tables, image), dict.fromkeys(tables, "linux/amd64"))


def web(table: dict[str, Any], image: dict[str, Any] | None = None) -> dict[str, Any]:
    definition: dict[str, Any] = compose({"web": {"image": "web", **table}}, image)["services"]["web"]
    return definition


def test_service_is_hardened_as_in_the_lab() -> None:
    definition = web({"limits": {"cpus": 0.5, "memory": "64m", "pids": 32, "disk": "8m"}})
    assert (definition["read_only"], definition["init"], definition["ipc"]) == (True, True, "private")
    assert (definition["cap_drop"], definition["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert (definition["cpus"], definition["pids_limit"]) == (0.5, 32)
    assert definition["mem_limit"] == definition["memswap_limit"] == (64 + 8) * 1024**2
    assert definition["tmpfs"] == [f"/tmp:rw,noexec,nosuid,nodev,size={8 * 1024**2},uid=10001,gid=10001"]
    assert (definition["image"], definition["pull_policy"]) == ("shop/web:1.0.0", "never")


def test_environment_has_defaults_and_requires_secrets() -> None:
    variables = {
        "A": {"default": "x"},
        "B": {"required": True, "description": "needed"},
        "C": {"secret": True, "test_value": "hidden-away"},
        "D": {},
    }
    environment = web({"environment": variables})["environment"]
    assert environment == {"A": "${A-x}", "B": "${B:?needed}", "C": "${C:?required}", "D": "${D-}"}


def test_dollar_in_values_and_commands_is_escaped() -> None:
    definition = web({"command": ["echo", "$HOME"], "environment": {"A": {"default": "a$b"}}})
    assert definition["command"] == ["echo", "$$HOME"]
    assert definition["environment"] == {"A": "${A-a$$b}"}


def test_dollar_in_paths_is_escaped() -> None:
    table = {
        "working_dir": "/srv/$app",
        "tmpfs": {"/t/$x": "1m"},
        "volumes": {"v": {"path": "/d/$x"}},
        "secrets": {"s": {"path": "/s/$x"}},
        "configs": {"c": {"path": "/c/$x", "source": "a.$x"}},
    }
    document = compose({"web": {"image": "web", **table}})
    written = str({"services": document["services"], "configs": document["configs"]})
    assert written.count("$$x") == 5
    assert written.replace("$$", "").count("$") == 0
    assert document["services"]["web"]["working_dir"] == "/srv/$$app"


def test_shared_port_has_no_second_default_address() -> None:
    tables = {
        "web": {"image": "web", "ports": {"http": 8000, "dns": 53}},
        "admin": {"image": "web", "ports": {"http": 8000, "dns": "53/udp"}},
    }
    compose_services = compose(tables)["services"]
    assert compose_services["web"]["ports"] == [
        "${WEB_HTTP_PUBLISH:-127.0.0.1:8000}:8000",
        "${WEB_DNS_PUBLISH:-127.0.0.1:53}:53",
    ]
    assert compose_services["admin"]["ports"] == [
        "${ADMIN_HTTP_PUBLISH:?where admin publishes its port http}:8000",
        "${ADMIN_DNS_PUBLISH:-127.0.0.1:53}:53/udp",
    ]
    lines = render_env_example(services(tables)).splitlines()
    assert {"#WEB_HTTP_PUBLISH=127.0.0.1:8000", "ADMIN_HTTP_PUBLISH=", "#ADMIN_DNS_PUBLISH=127.0.0.1:53"} < set(lines)


def test_ports_are_published_on_loopback_by_default() -> None:
    definition = web({"ports": {"http": 8000}})
    assert definition["ports"] == ["${WEB_HTTP_PUBLISH:-127.0.0.1:8000}:8000"]
    assert definition["networks"] == ["inner", "edge"]
    definition = web({"ports": {"dns": "53/udp"}})
    assert definition["ports"] == ["${WEB_DNS_PUBLISH:-127.0.0.1:53}:53/udp"]


def test_configured_address_has_precedence() -> None:
    tables = {
        "web": {"image": "web", "ports": {"http": 80, "metrics": 9090}},
        "proxy": {"image": "web", "ports": {"http": 8000}, "publish": {"http": "0.0.0.0:80"}},
        "admin": {"image": "web", "ports": {"http": 8000}, "publish": {"http": "[::1]:8080"}},
    }
    published = {name: definition["ports"] for name, definition in compose(tables)["services"].items()}
    assert published == {
        "web": [
            "${WEB_HTTP_PUBLISH:?where web publishes its port http}:80",
            "${WEB_METRICS_PUBLISH:-127.0.0.1:9090}:9090",
        ],
        "proxy": ["${PROXY_HTTP_PUBLISH:-0.0.0.0:80}:8000"],
        "admin": ["${ADMIN_HTTP_PUBLISH:-[::1]:8080}:8000"],
    }
    assert "#ADMIN_HTTP_PUBLISH=[::1]:8080" in render_env_example(services(tables)).splitlines()
    described = build_environment_document("shop", services(tables))["services"]
    assert described["proxy"]["ports"][0]["address"] == "0.0.0.0:80"
    assert "address" not in described["web"]["ports"][0]


def test_shared_volume_is_one_and_gets_files_of_its_writer() -> None:
    tables = {
        "web": {"image": "web", "volumes": {"static": {"path": "/www", "shared": "static", "read_only": True}}},
        "app": {"image": "web", "volumes": {"out": {"path": "/out", "shared": "static"}, "own": {"path": "/own"}}},
    }
    document = compose(tables)
    assert document["volumes"] == {"static": {}, "app-own": {}}
    assert document["services"]["web"]["volumes"] == ["static:/www:ro,nocopy"]
    assert document["services"]["app"]["volumes"] == ["static:/out", "app-own:/own"]


def test_content_of_a_config_has_the_suffix_of_its_path() -> None:
    table = {"image": "web", "configs": {"site": {"path": "/etc/site.conf", "content": "x"}}}
    assert compose({"web": table})["configs"] == {"web-site": {"file": "./configs/web/site.conf"}}


def test_service_with_egress_joins_the_outer_network() -> None:
    document = compose({"web": {"image": "web", "ports": {"http": 80}, "egress": True}})
    assert document["services"]["web"]["networks"] == ["inner", "out"]
    assert document["networks"] == {"inner": {"internal": True}, "out": {}}


def test_depends_on_waits_for_what_services_report() -> None:
    tables = {
        "web": {"image": "web", "depends_on": ["checked", "once", "plain", "outside"]},
        "checked": {"image": "web", "healthcheck": {"exec": ["/check"]}},
        "once": {"image": "web", "oneshot": True},
        "plain": {"image": "web"},
        "outside": {"image": "web", "ports": {"http": 80}, "healthcheck": {"http": "GET /"}},
    }
    conditions = {
        name: condition["condition"] for name, condition in compose(tables)["services"]["web"]["depends_on"].items()
    }
    assert conditions == {
        "checked": "service_healthy",
        "once": "service_completed_successfully",
        "plain": "service_started",
        "outside": "service_started",
    }


def test_health_check_of_the_image_counts() -> None:
    image = IMAGE | {"Healthcheck": {"Test": ["CMD", "/check"]}}
    tables = {"web": {"image": "web", "depends_on": ["db"]}, "db": {"image": "web"}}
    assert compose(tables, image)["services"]["web"]["depends_on"]["db"]["condition"] == "service_healthy"


def test_compose_file_omits_test_doubles() -> None:
    tables = {
        "web": {"image": "web", "depends_on": ["redis", "fake"]},
        "redis": {"image": "redis:7", "promote": False},
        "fake": {"image": "web", "promote": False},
    }
    document = compose(tables)
    assert list(document["services"]) == ["web"]
    assert "depends_on" not in document["services"]["web"]


def test_configs_secrets_and_volumes_are_named_by_service() -> None:
    table = {
        "image": "web",
        "configs": {"site": {"path": "/etc/site", "source": "conf/site.toml"}},
        "secrets": {"key": {"path": "/run/key"}},
        "volumes": {"data": {"path": "/data"}},
    }
    document = compose({"web": table})
    assert document["configs"] == {"web-site": {"file": "./configs/web/site.toml"}}
    assert document["secrets"] == {"web-key": {"file": "${WEB_KEY_FILE:?path of the file with key}"}}
    assert document["volumes"] == {"web-data": {}}
    assert document["services"]["web"]["secrets"] == [{"source": "web-key", "target": "/run/key"}]


def test_compose_file_is_the_document_as_yaml() -> None:
    shop = services({"web": {"image": "web", "environment": {"A": {"default": "a: 'b' # c"}}}})
    for platforms in ({"web": "linux/amd64"}, {}):
        document = build_compose_document("shop", shop, platforms)
        assert yaml.safe_load(render_compose_file("shop", shop, platforms)) == document
        assert document["services"]["web"].get("platform") == platforms.get("web"), (
            "services of several platforms use that of the node"
        )


def test_environment_document_lists_all_variables() -> None:
    variables = {"A": {"default": "x", "description": "an a"}, "B": {"secret": True, "test_value": "hidden-away"}}
    document = build_environment_document("shop", services({"web": {"image": "web", "environment": variables}}))
    by_name = {variable["name"]: variable for variable in document["services"]["web"]["environment"]}
    assert set(by_name) == {"A", "B", "MODE"}
    assert (by_name["A"]["default"], by_name["A"]["required"], by_name["A"]["description"]) == ("x", False, "an a")
    assert (by_name["B"]["default"], by_name["B"]["required"], by_name["B"]["secret"]) == (None, True, True)
    assert (by_name["MODE"]["from"], by_name["MODE"]["default"]) == ("image", "fast")
    assert "hidden-away" not in str(document)


def test_env_example_leaves_required_variables_empty() -> None:
    table = {
        "image": "web",
        "environment": {
            "A": {"default": "x y", "description": "an a"},
            "B": {"secret": True, "test_value": "hidden-away", "description": "a b"},
        },
        "secrets": {"key": {"path": "/run/key", "description": "a key"}},
        "ports": {"http": 80},
    }
    lines = render_env_example(services({"web": table})).splitlines()
    assert "#A='x y'" in lines
    assert "B=" in lines
    assert "WEB_KEY_FILE=" in lines
    assert "#WEB_HTTP_PUBLISH=127.0.0.1:80" in lines
    assert "hidden-away" not in "\n".join(lines)


def test_env_example_requires_what_any_service_requires() -> None:
    tables = {
        "web": {"image": "web", "environment": {"LEVEL": {"default": "info"}, "PLACE": {}}},
        "api": {"image": "web", "environment": {"LEVEL": {"required": True, "description": "how much"}, "PLACE": {}}},
    }
    lines = render_env_example(services(tables)).splitlines()
    assert [line for line in lines if "LEVEL" in line or "PLACE" in line or "how" in line] == [
        "# how much", "LEVEL=", "# PLACE", "#PLACE="
    ]  # fmt: skip


HARD = {
    "A": "it's # $x", "B": "end\\", "C": "a'b\"c\\d$e", "D": "{{name}}", "E": "a}b", "F": "{}", "G": '{"a": {}}',
    "H": "${x}", "I": "", "J": "#x", "K": " lead trail ", "L": "\\'", "M": "a\\nb", "N": "\u00e9 \u2603", "O": "p:a=b",
}  # fmt: skip


def test_compose_reads_defaults_and_values_unchanged(box: Sandbox, tmp_path: Path) -> None:
    tables = {"web": {"image": "web", "environment": {key: {"default": value} for key, value in HARD.items()}}}
    shop = services(tables)
    (tmp_path / "compose.yaml").write_text(render_compose_file("shop", shop, {}))

    def read(env: str) -> dict[str, str]:
        (tmp_path / ".env").write_text(env)
        command = [str(box.docker), "compose", "config", "--format", "json"]
        environment = os.environ | box.environment()
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        values = json.loads(result.stdout)["services"]["web"]["environment"]
        return {key: (value or "").replace("$$", "$") for key, value in values.items()}

    example = render_env_example(shop)
    assert read(example) == HARD
    assert read(re.sub(r"(?m)^#(?=\w+=)", "", example)) == HARD, "the lines that are commented out have the same values"
    assert read("".join(f"{key}=set\n" for key in HARD)) == dict.fromkeys(HARD, "set")
    (tmp_path / ".env").unlink()
    script = "\n".join([*SET_VARIABLE_FUNCTIONS, *(f"ask {key}" for key in HARD)])
    typed = "".join(f"{value}\n" for value in HARD.values())
    subprocess.run(["sh", "-c", script], cwd=tmp_path, input=typed, text=True, stdout=subprocess.DEVNULL, check=True)
    assert read((tmp_path / ".env").read_text()) == HARD, "typed as PROMOTION.md says"


def test_similar_names_are_different_projects_for_compose(box: Sandbox, tmp_path: Path) -> None:
    shop = services({"web": {"image": "web"}})

    def read_name(project: str) -> str:
        (tmp_path / "compose.yaml").write_text(render_compose_file(project, shop, {}))
        command = [str(box.docker), "compose", "config", "--format", "json"]
        environment = os.environ | box.environment()
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return str(json.loads(result.stdout)["name"])

    names = {name: read_name(name) for name in ("a-b", "a_b", "a.b", "a..b", "a.b-c", "a-b.c", "a.")}
    assert (names["a-b"], names["a_b"]) == ("a-b", "a_b")
    assert len(set(names.values())) == len(names), names
