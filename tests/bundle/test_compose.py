from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lyra_tasks.bundle.content.compose import build_compose_document, render_compose_file
from lyra_tasks.bundle.content.environment import build_environment_document, render_env_example
from lyra_tasks.bundle.content.services import PromotedService, select_promoted_services
from lyra_tasks.config.models import Configuration
from lyra_tasks.engine.sandbox import Sandbox

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
    found: dict[str, Any] = compose({"web": {"image": "web", **table}}, image)["services"]["web"]
    return found


def test_a_service_is_as_locked_down_as_in_the_lab() -> None:
    found = web({"limits": {"cpus": 0.5, "memory": "64m", "pids": 32, "disk": "8m"}})
    assert (found["read_only"], found["init"], found["ipc"]) == (True, True, "private")
    assert (found["cap_drop"], found["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert (found["cpus"], found["pids_limit"]) == (0.5, 32)
    assert found["mem_limit"] == found["memswap_limit"] == (64 + 8) * 1024**2
    assert found["tmpfs"] == [f"/tmp:rw,noexec,nosuid,nodev,size={8 * 1024**2},mode=1777"]
    assert (found["image"], found["pull_policy"]) == ("shop/web:1.0.0", "never")


def test_defaults_are_written_and_secrets_must_be_given() -> None:
    variables = {
        "A": {"default": "x"},
        "B": {"required": True, "description": "needed"},
        "C": {"secret": True, "test_value": "hidden-away"},
        "D": {},
    }
    found = web({"environment": variables})["environment"]
    assert found == {"A": "${A-x}", "B": "${B:?needed}", "C": "${C:?required}", "D": "${D-}"}


def test_a_dollar_in_a_value_or_a_command_stays_a_dollar() -> None:
    found = web({"command": ["echo", "$HOME"], "environment": {"A": {"default": "a$b"}}})
    assert found["command"] == ["echo", "$$HOME"]
    assert found["environment"] == {"A": "${A-a$$b}"}


def test_a_dollar_in_a_path_stays_a_dollar() -> None:
    table = {
        "working_dir": "/srv/$app",
        "tmpfs": {"/t/$x": "1m"},
        "volumes": {"v": {"path": "/d/$x"}},
        "secrets": {"s": {"path": "/s/$x"}},
        "configs": {"c": {"path": "/c/$x", "source": "a.$x"}},
    }
    found = compose({"web": {"image": "web", **table}})
    written = str({"services": found["services"], "configs": found["configs"]})
    assert written.count("$$x") == 5
    assert written.replace("$$", "").count("$") == 0
    assert found["services"]["web"]["working_dir"] == "/srv/$$app"


def test_two_services_are_not_published_in_one_place() -> None:
    tables = {
        "web": {"image": "web", "ports": {"http": 8000, "dns": 53}},
        "admin": {"image": "web", "ports": {"http": 8000, "dns": "53/udp"}},
    }
    found = compose(tables)["services"]
    assert found["web"]["ports"] == ["${WEB_HTTP_PUBLISH:-127.0.0.1:8000}:8000", "${WEB_DNS_PUBLISH:-127.0.0.1:53}:53"]
    assert found["admin"]["ports"] == [
        "${ADMIN_HTTP_PUBLISH:?where admin publishes its port http}:8000",
        "${ADMIN_DNS_PUBLISH:-127.0.0.1:53}:53/udp",
    ]
    lines = render_env_example(services(tables)).splitlines()
    assert {"#WEB_HTTP_PUBLISH=127.0.0.1:8000", "ADMIN_HTTP_PUBLISH=", "#ADMIN_DNS_PUBLISH=127.0.0.1:53"} < set(lines)


def test_ports_are_published_on_this_machine_only_unless_the_operator_says_otherwise() -> None:
    found = web({"ports": {"http": 8000}})
    assert found["ports"] == ["${WEB_HTTP_PUBLISH:-127.0.0.1:8000}:8000"]
    assert found["networks"] == ["inner", "edge"]
    found = web({"ports": {"dns": "53/udp"}})
    assert found["ports"] == ["${WEB_DNS_PUBLISH:-127.0.0.1:53}:53/udp"]


def test_a_service_with_egress_joins_the_bridge_with_a_way_out_and_not_the_one_without() -> None:
    found = compose({"web": {"image": "web", "ports": {"http": 80}, "egress": True}})
    assert found["services"]["web"]["networks"] == ["inner", "out"]
    assert found["networks"] == {"inner": {"internal": True}, "out": {}}


def test_services_wait_for_what_the_one_they_need_can_tell() -> None:
    tables = {
        "web": {"image": "web", "depends_on": ["checked", "once", "plain", "outside"]},
        "checked": {"image": "web", "healthcheck": {"exec": ["/check"]}},
        "once": {"image": "web", "oneshot": True},
        "plain": {"image": "web"},
        "outside": {"image": "web", "ports": {"http": 80}, "healthcheck": {"http": "GET /"}},
    }
    conditions = {name: each["condition"] for name, each in compose(tables)["services"]["web"]["depends_on"].items()}
    assert conditions == {
        "checked": "service_healthy",
        "once": "service_completed_successfully",
        "plain": "service_started",
        "outside": "service_started",
    }


def test_the_images_own_health_check_counts_as_one() -> None:
    image = IMAGE | {"Healthcheck": {"Test": ["CMD", "/check"]}}
    tables = {"web": {"image": "web", "depends_on": ["db"]}, "db": {"image": "web"}}
    assert compose(tables, image)["services"]["web"]["depends_on"]["db"]["condition"] == "service_healthy"


def test_doubles_never_travel_and_nobody_waits_for_them() -> None:
    tables = {
        "web": {"image": "web", "depends_on": ["redis", "fake"]},
        "redis": {"external": "redis:7"},
        "fake": {"image": "web", "promote": False},
    }
    found = compose(tables)
    assert list(found["services"]) == ["web"]
    assert "depends_on" not in found["services"]["web"]


def test_files_and_volumes_have_names_of_their_own() -> None:
    table = {
        "image": "web",
        "configs": {"site": {"path": "/etc/site", "source": "conf/site.toml"}},
        "secrets": {"key": {"path": "/run/key"}},
        "volumes": {"data": {"path": "/data"}},
    }
    found = compose({"web": table})
    assert found["configs"] == {"web-site": {"file": "./configs/web/site.toml"}}
    assert found["secrets"] == {"web-key": {"file": "${WEB_KEY_FILE:?path of the file with key}"}}
    assert found["volumes"] == {"web-data": {}}
    assert found["services"]["web"]["secrets"] == [{"source": "web-key", "target": "/run/key"}]


def test_the_text_is_yaml_that_says_the_same() -> None:
    shop = services({"web": {"image": "web", "environment": {"A": {"default": "a: 'b' # c"}}}})
    for platforms in ({"web": "linux/amd64"}, {}):
        document = build_compose_document("shop", shop, platforms)
        assert yaml.safe_load(render_compose_file("shop", shop, platforms)) == document
        assert document["services"]["web"].get("platform") == platforms.get("web"), "several: that of the node"


def test_every_variable_is_described_and_what_only_the_image_sets_is_listed_too() -> None:
    variables = {"A": {"default": "x", "description": "an a"}, "B": {"secret": True, "test_value": "hidden-away"}}
    document = build_environment_document("shop", services({"web": {"image": "web", "environment": variables}}))
    found = {each["name"]: each for each in document["services"]["web"]["environment"]}
    assert set(found) == {"A", "B", "MODE"}
    assert (found["A"]["default"], found["A"]["required"], found["A"]["description"]) == ("x", False, "an a")
    assert (found["B"]["default"], found["B"]["required"], found["B"]["secret"]) == (None, True, True)
    assert (found["MODE"]["from"], found["MODE"]["default"]) == ("image", "fast")
    assert "hidden-away" not in str(document)


def test_the_example_leaves_open_what_must_be_set() -> None:
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


def test_what_one_of_several_services_requires_is_open() -> None:
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


def test_compose_reads_every_default_and_every_value_as_it_was_meant(box: Sandbox, tmp_path: Path) -> None:
    tables = {"web": {"image": "web", "environment": {key: {"default": value} for key, value in HARD.items()}}}
    shop = services(tables)
    (tmp_path / "compose.yaml").write_text(render_compose_file("shop", shop, {}))

    def read(env: str) -> dict[str, str]:
        (tmp_path / ".env").write_text(env)
        command = [str(box.docker), "compose", "config", "--format", "json"]
        environment = os.environ | box.environment()
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        values = json.loads(done.stdout)["services"]["web"]["environment"]
        return {key: (value or "").replace("$$", "$") for key, value in values.items()}

    example = render_env_example(shop)
    assert read(example) == HARD
    assert read(re.sub(r"(?m)^#(?=\w+=)", "", example)) == HARD, "every line that is commented out says the same"
    assert read("".join(f"{key}=set\n" for key in HARD)) == dict.fromkeys(HARD, "set")
