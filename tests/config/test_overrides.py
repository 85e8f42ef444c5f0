"""Test the two keys that environment variables override."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]
VALID = 'schema = 1\n[project]\nname = "guestbook"\n'


def test_environment_overrides_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID + "[resources]\nhost_share = 0.5\n")
    monkeypatch.setenv("LYRA_HOST_SHARE", "0.25")
    loaded = load_config()
    assert loaded.config.resources.host_share == 0.25
    assert loaded.overrides == {("resources", "host_share"): "LYRA_HOST_SHARE"}


def test_empty_variable_overrides_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_HOST_SHARE", "")
    assert load_config().config.resources.host_share == 0.75


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2", "must be at most 1, found 2.0"),
        ("half", "must be a number, found a string"),
        ("nan", "must be a finite number"),
    ],
)
def test_invalid_override_names_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_HOST_SHARE", value)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == (f"LYRA_HOST_SHARE: {message}",)


def test_builder_is_overridden_by_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_BUILDER", "other")
    loaded = load_config()
    assert loaded.config.builder.name == "other"
    assert loaded.overrides == {("builder", "name"): "LYRA_BUILDER"}
