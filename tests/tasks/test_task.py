"""Errors that every task reports: an unusable state directory, an invalid ignore file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Project, repository
from tests.faults import refused, unprivileged

pytestmark = pytest.mark.slow

CONFIG = 'schema = 1\n[project]\nname = "small"\n[images.web]\ncontext = "web"\n'


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """Return a project with one image and no engine."""
    root = tmp_path / "project"
    (root / "web").mkdir(parents=True)
    (root / "web" / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (root / ".lyra.toml").write_text(CONFIG)
    return repository(root, tmp_path, tmp_path / "cache" / "lyra", None)


def test_unusable_state_directory_is_reported(small: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "private").mkdir(mode=0o555)
    os.chown(tmp_path / "private", 65534, 65534)
    for task, state, reason, hint in (
        ("build", tmp_path / "file" / "below", "Not a directory", "Move the existing file"),
        ("status", tmp_path / "file", "Not a directory", "Move the existing file"),
        ("history", tmp_path / "loop", "Too many levels of symbolic links", "Move the existing file"),
        ("build", tmp_path / ("x" * 300), "File name too long", "choose another directory"),
        ("build", tmp_path / "private", "Permission denied", "Make it writable"),
    ):
        # root without the capability that ignores permissions
        refused(unprivileged(small, task, XDG_STATE_HOME=str(state)), 3, f"{state}/lyra", reason, hint)
    assert not (small.root / ".lyra").exists()
    assert small.git("status", "--porcelain") == ""


def test_invalid_ignore_file_is_reported(small: Project) -> None:
    for task, content, message in (
        ("status", b"\xff\n", "Cannot read web/.dockerignore: not valid UTF-8"),
        ("explain", b"[\n", "web/.dockerignore:1: invalid pattern"),
    ):
        (small.root / "web" / ".dockerignore").write_bytes(content)
        refused(small.lyra(task), 2, message)
