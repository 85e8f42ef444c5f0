"""Compose projects on disk, and the plugin that reads them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.compose.model import COMPOSE_VARIABLES
from lyra_tasks.compose.plugin import find_plugin
from lyra_tasks.engine.debian.mirror import host_codename, is_ubuntu
from lyra_tasks.engine.sandbox.packages import fetch_engine
from lyra_tasks.errors import PreconditionError
from tests.packages import unpacked

WriteProject = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def compose_plugin(cache: Path) -> None:
    """Unpack the packages of a private engine where this machine has no Docker Compose."""
    try:
        find_plugin()
    except PreconditionError:
        fetch_engine(cache, host_codename() if is_ubuntu() else "trixie", lambda _: None)


@pytest.fixture(scope="session")
def newest_compose(cache: Path) -> Path:
    """Return the settings of a `docker` command that has the newest Compose."""
    return unpacked(cache, "docker-compose", suite="sid") / "usr/libexec/docker"


@pytest.fixture
def write_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteProject:
    """Return a function that writes the files of a project, by their paths with `/` as `__`, and changes into it."""
    for variable in (*COMPOSE_VARIABLES, "LYRA_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "shop"

    def write(compose: str = "", files: dict[str, str] | None = None) -> Path:
        texts = {"compose.yaml": compose} if compose else {}
        for name, text in (texts | (files or {})).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        (root / ".git").mkdir(exist_ok=True)
        monkeypatch.chdir(root)
        return root

    return write
