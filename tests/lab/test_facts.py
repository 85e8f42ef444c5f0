"""Facts that a lab plan depends on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.config.service_models import Service
from lyra_tasks.engine.client.facts import EngineFacts
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.lab.facts import collect_lab_facts, resolve_test_environment


@pytest.mark.parametrize(("rootless", "fix"), [(True, "delegate its controllers"), (False, "Use a kernel with")])
def test_engine_without_limits_is_refused_before_anything_is_created(rootless: bool, fix: str) -> None:
    facts = EngineFacts(
        "id", "28.5.1", (1, 51), "classic", 4, 1, "linux/amd64", False, is_rootless=rootless, missing_limits=("CPUs",)
    )
    work: Any = SimpleNamespace(engine=SimpleNamespace(facts=facts))
    with pytest.raises(PreconditionError, match="This engine cannot limit CPUs") as caught:
        collect_lab_facts(work, {})
    assert fix in caught.value.hint


def test_required_variable_without_value_is_named() -> None:
    service = Service.model_validate(
        {
            "image": "web",
            "environment": {
                "REGION": {"required": True, "description": "region"},
                "ZONE": {"required": True, "description": "zone"},
                "NAME": {"default": "hunter2", "description": "name"},
                "KEY": {"required": True, "secret": True, "description": "API key"},
            },
        }
    )
    with pytest.raises(ConfigurationError) as caught:
        resolve_test_environment("web", service)
    assert caught.value.exit_code == 2
    assert caught.value.message == "services.web.environment.REGION: is required and has no value for tests"
    assert caught.value.details == ("services.web.environment.ZONE: is required and has no value for tests",)
    assert caught.value.hint == "Add a default or a test_value"
    assert "hunter2" not in repr(vars(caught.value))
