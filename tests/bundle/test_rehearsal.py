"""What somebody fills in who rehearses a bundle, and what the checks then know of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lyra_tasks.bundle.content.environment import render_env_example
from lyra_tasks.bundle.rehearse.plan import (
    RehearsalFacts,
    RehearsalPlan,
    plan_rehearsal,
    remove_compose_variables,
    render_env_file,
)
from lyra_tasks.config.models import Configuration
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import MANIFEST


def planned(tables: dict[str, Any], values: dict[str, dict[str, str]]) -> RehearsalPlan:
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "shop"}, "images": {"web": {"context": "."}}, "services": tables}
    )
    facts = RehearsalFacts(Path("/bundle"), MANIFEST, render_env_example(services(tables)), {}, "c" * 40, 2**30, 1.0)
    return plan_rehearsal(config, facts, values)


def test_a_variable_of_several_services_has_one_value_that_the_checks_of_each_know() -> None:
    secret = {"TOKEN": {"secret": True}, "LEVEL": {"default": "info"}, "PLACE": {"default": "here"}}
    tables = {
        "web": {"image": "web", "environment": secret},
        "api": {"image": "web", "environment": secret | {"LEVEL": {"required": True, "test_value": "all"}}},
        "double": {"external": "redis:7", "environment": {"TOKEN": {"test_value": "its own"}}},
    }
    values = {
        "web": {"TOKEN": "random-1", "LEVEL": "info", "PLACE": "here"},
        "api": {"TOKEN": "random-2", "LEVEL": "all", "PLACE": "here"},
        "double": {"TOKEN": "its own"},
    }
    made = planned(tables, values)
    assert render_env_file(made, "127.0.0.1", Path("/secrets")) == "LEVEL=all\nTOKEN=random-2\n"
    assert (
        made.service_values["web"]
        == made.service_values["api"]
        == {"TOKEN": "random-2", "LEVEL": "all", "PLACE": "here"}
    )
    assert made.service_values["double"] == {"TOKEN": "its own"}


def test_a_default_that_only_the_file_can_hold_is_filled_in() -> None:
    made = planned({"web": {"image": "web", "environment": {"X": {"default": "a}b"}}}}, {"web": {"X": "a}b"}})
    assert render_env_file(made, "127.0.0.1", Path("/secrets")) == "X='a}b'\n"


def test_ports_and_secret_files_are_given_places() -> None:
    table = {"image": "web", "ports": {"http": 80, "dns": "53/udp"}, "secrets": {"key": {"path": "/run/key"}}}
    made = planned({"web": table}, {"web": {}})
    assert render_env_file(made, "10.0.0.1", Path("/it's here")).splitlines() == [
        "WEB_DNS_PUBLISH=10.0.0.1:20001",
        "WEB_HTTP_PUBLISH=10.0.0.1:20000",
        'WEB_KEY_FILE="/it\'s here/WEB_KEY_FILE"',
    ]


def test_what_is_set_in_the_shell_is_not_taken_for_what_was_filled_in() -> None:
    made = planned(
        {"web": {"image": "web", "environment": {"LEVEL": {"default": "x"}}, "ports": {"http": 80}}}, {"web": {}}
    )
    shell = {
        "PATH": "/bin",
        "LEVEL": "y",
        "WEB_HTTP_PUBLISH": "1",
        "COMPOSE_FILE": "other.yaml",
        "COMPOSE_PROFILES": "a",
    }
    assert remove_compose_variables(made, shell) == {"PATH": "/bin"}
