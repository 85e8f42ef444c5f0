"""Facts that a lab plan depends on."""

from __future__ import annotations

import pytest

from lyra_tasks.config.service_models import Service
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.lab.facts import resolve_test_environment


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
