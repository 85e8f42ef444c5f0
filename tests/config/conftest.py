"""A project on disk with the configuration of a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MINIMAL = """\
schema = 1
[project]
name = "guestbook"
"""

Project = Callable[[str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a function that writes `.lyra.toml` of a project with one image, in the working directory."""
    for variable in ("LYRA_CONFIG", "LYRA_HOST_SHARE", "LYRA_BUILDER", "LYRA_ENGINE"):
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "project"
    (root / "web").mkdir(parents=True)
    (root / "web" / "Dockerfile").write_text("FROM scratch\n")
    (root / "web" / "site.toml").write_text("title = 1\n")
    monkeypatch.chdir(root)

    def write(text: str) -> Path:
        (root / ".lyra.toml").write_text(text, encoding="utf-8")
        return root

    return write
