"""The `.env` of a rehearsal, and the values that its checks use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.content.environment import build_environment_document, render_env_example
from lyra_tasks.bundle.format.documents import DescribedService
from lyra_tasks.bundle.format.manifest import Bundle
from lyra_tasks.bundle.rehearse.plan import (
    RehearsalFacts,
    RehearsalPlan,
    RehearsedBundle,
    answer,
    compute_start_timeout,
    plan_rehearsal,
    remove_compose_variables,
    render_choices,
)
from lyra_tasks.checks.deployed import ready_timeout
from lyra_tasks.config.models import Configuration, Service
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import MANIFEST


def plan_for(tables: dict[str, Any], values: dict[str, dict[str, str]]) -> RehearsalPlan:
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "shop"}, "images": {"web": {"context": "."}}, "services": tables}
    )
    promoted = services(tables)
    documents = build_environment_document("shop", promoted)["services"]
    described = {name: DescribedService.model_validate(document) for name, document in documents.items()}
    bundle = RehearsedBundle(Bundle(Path("/bundle"), MANIFEST), render_env_example(promoted), described)
    return plan_rehearsal(config, RehearsalFacts(bundle, None, "c" * 40, 2**30, 1.0), values)


def choices(plan: RehearsalPlan, present: str = "") -> str:
    """Return what is added to `.env`."""
    return render_choices(plan, plan.facts.newer, "10.0.0.1", present)


def test_shared_variable_has_one_value_for_all_services() -> None:
    secret = {"TOKEN": {"secret": True}, "LEVEL": {"default": "info"}, "PLACE": {"default": "here"}}
    tables = {
        "web": {"image": "web", "environment": secret},
        "api": {"image": "web", "environment": secret | {"LEVEL": {"required": True, "test_value": "all"}}},
        "double": {"image": "redis:7", "promote": False, "environment": {"TOKEN": {"test_value": "its own"}}},
    }
    values = {
        "web": {"TOKEN": "random-1", "LEVEL": "info", "PLACE": "here"},
        "api": {"TOKEN": "random-2", "LEVEL": "all", "PLACE": "here"},
        "double": {"TOKEN": "its own"},
    }
    plan = plan_for(tables, values)
    assert choices(plan) == "LEVEL=all\nTOKEN=random-2\n"
    assert choices(plan, "LEVEL=all\n#TOKEN=\n") == "TOKEN=random-2\n", "what is there stays"
    assert (
        plan.service_values["web"]
        == plan.service_values["api"]
        == {"TOKEN": "random-2", "LEVEL": "all", "PLACE": "here"}
    )
    assert plan.service_values["double"] == {"TOKEN": "its own"}


def test_default_invalid_in_compose_is_filled_in() -> None:
    plan = plan_for({"web": {"image": "web", "environment": {"X": {"default": "a}b"}}}}, {"web": {"X": "a}b"}})
    assert choices(plan) == "X='a}b'\n"


def test_ports_and_secret_files_are_assigned() -> None:
    secrets = {"key": {"path": "/run/key"}, "pin": {"path": "/run/pin", "test_value": "1234"}}
    table = {"image": "web", "ports": {"http": 80, "dns": "53/udp"}, "secrets": secrets}
    plan = plan_for({"web": table}, {"web": {}})
    assert choices(plan).splitlines() == ["WEB_DNS_PUBLISH=10.0.0.1:20001", "WEB_HTTP_PUBLISH=10.0.0.1:20000"]
    assert plan.secret_files["WEB_PIN_FILE"] == "1234"
    assert len(plan.secret_files["WEB_KEY_FILE"]) == 64
    assert answer(plan, "10.0.0.1", "WEB_HTTP_PUBLISH") == "10.0.0.1:20000"
    assert len(answer(plan, "10.0.0.1", "ONLY_IN_THE_OLDER_VERSION")) == 32


def test_start_takes_as_long_as_the_services_may() -> None:
    web, job, api = {"image": "web"}, {"image": "web", "oneshot": True, "start_timeout": "1h"}, {"image": "web"}
    check = {"exec": "true", "interval": "10s", "timeout": "5s", "retries": 3, "start_period": "15m"}
    tables = {"web": web | {"healthcheck": check}, "job": job, "api": api | {"start_timeout": "5s"}}
    plan = plan_for(tables, {"web": {}, "job": {}, "api": {}})
    assert compute_start_timeout(plan) == 600 + (900 + 4 * 15) + 3600 + 5


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, 30),
        ({"start_timeout": "10m"}, 600),
        ({"start_timeout": "5s"}, 30),
        ({"healthcheck": {"tcp": 80, "interval": "10s", "retries": 6, "timeout": "5s", "start_period": "2m"}}, 185),
        ({"healthcheck": {"tcp": 80, "start_period": "2m"}, "start_timeout": "45s"}, 45),
        ({"healthcheck": {"exec": "true", "start_period": "2m"}}, 30),
    ],
)
def test_checks_wait_as_long_as_the_service_may_take(table: dict[str, Any], expected: float) -> None:
    service = Service.model_validate({"image": "web", "ports": {"http": 80}, **table})
    assert ready_timeout(service) == expected


def test_shell_variables_do_not_override_env_file() -> None:
    plan = plan_for(
        {"web": {"image": "web", "environment": {"LEVEL": {"default": "x"}}, "ports": {"http": 80}}}, {"web": {}}
    )
    shell = {
        "PATH": "/bin",
        "LEVEL": "y",
        "WEB_HTTP_PUBLISH": "1",
        "COMPOSE_FILE": "other.yaml",
        "COMPOSE_PROFILES": "a",
    }
    assert remove_compose_variables(plan, shell) == {"PATH": "/bin"}
