"""The two values that the environment may set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]
VALID = 'schema = 1\n[project]\nname = "guestbook"\n'


def test_the_environment_wins_over_the_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID + "[resources]\nhost_share = 0.5\n")
    monkeypatch.setenv("LYRA_HOST_SHARE", "0.25")
    loaded = load_config()
    assert loaded.config.resources.host_share == 0.25
    assert loaded.overrides == {("resources", "host_share"): "LYRA_HOST_SHARE"}


def test_an_empty_variable_sets_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_HOST_SHARE", "")
    assert load_config().config.resources.host_share == 0.75


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("2", "must be at most 1, found 2.0"),
        ("half", "must be a number, found a string"),
        ("nan", "must be a finite number"),
    ],
)
def test_a_wrong_variable_is_named_instead_of_a_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str, wrong: str
) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_HOST_SHARE", value)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == (f"LYRA_HOST_SHARE: {wrong}",)


def test_a_builder_from_the_environment_is_not_ignored(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_BUILDER", "other")
    loaded = load_config()
    assert loaded.config.builder.name == "other"
    assert loaded.overrides == {("builder", "name"): "LYRA_BUILDER"}
