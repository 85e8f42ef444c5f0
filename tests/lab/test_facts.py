"""What a lab needs to know beforehand."""

from __future__ import annotations

import pytest

from lyra_tasks.config.service_models import Service
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.lab import facts


def test_a_required_variable_is_named_by_its_name() -> None:
    service = Service.model_validate(
        {
            "image": "web",
            "environment": {
                "REGION": {"required": True, "description": "where it runs"},
                "ZONE": {"required": True, "description": "where in there"},
                "NAME": {"default": "hunter2", "description": "what it is called"},
                "KEY": {"required": True, "secret": True, "description": "opens the door"},
            },
        }
    )
    with pytest.raises(ConfigurationError) as caught:
        facts.resolve_test_environment("web", service)
    assert caught.value.exit_code == 2
    assert caught.value.message == "services.web.environment.REGION: is required and has no value for tests"
    assert caught.value.details == ("services.web.environment.ZONE: is required and has no value for tests",)
    assert caught.value.hint == "give it a default or a test_value"
    assert "hunter2" not in repr(vars(caught.value))
