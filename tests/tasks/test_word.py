"""What every word says where the machine is not as it must be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Project, repository
from tests.faults import refused, unprivileged

CONFIG = 'schema = 1\n[project]\nname = "small"\n[images.web]\ncontext = "web"\n'


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """A project with one image, and no engine."""
    root = tmp_path / "project"
    (root / "web").mkdir(parents=True)
    (root / "web" / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (root / ".lyra.toml").write_text(CONFIG)
    return repository(root, tmp_path, tmp_path / "cache" / "lyra", None)


def test_a_state_folder_that_cannot_be_is_named_and_nothing_is_begun(small: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "private").mkdir(mode=0o555)
    os.chown(tmp_path / "private", 65534, 65534)
    for word, place, reason, hint in (
        ("build", tmp_path / "file" / "below", "Not a directory", "move aside what is there"),
        ("status", tmp_path / "file", "Not a directory", "move aside what is there"),
        ("history", tmp_path / "loop", "Too many levels of symbolic links", "move aside what is there"),
        ("build", tmp_path / ("x" * 300), "File name too long", "name another folder"),
        ("build", tmp_path / "private", "Permission denied", "give yourself the right to it"),
    ):
        # root without the capability that lets it pass over permissions
        refused(unprivileged(small, word, XDG_STATE_HOME=str(place)), 3, f"{place}/lyra", reason, hint)
    assert not (small.root / ".lyra").exists()
    assert small.git("status", "--porcelain") == ""


def test_an_ignore_file_that_cannot_be_used_ends_no_word_with_a_traceback(small: Project) -> None:
    for word, content, said in (
        ("status", b"\xff\n", "web/.dockerignore: not UTF-8"),
        ("explain", b"[\n", "web/.dockerignore:1: not a valid pattern"),
    ):
        (small.root / "web" / ".dockerignore").write_bytes(content)
        refused(small.lyra(word), 2, said)
