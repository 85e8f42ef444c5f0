"""Files whose names are not UTF-8 stop no command, and no file that Lyra writes has such a name in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Project

NAME = os.fsdecode(b"notes-caf\xe9.txt")
ESCAPED = "notes-caf\\xe9.txt"


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a project with an untracked file beside its contexts."""
    project = make_tiny()
    (project.root / NAME).write_text("later")
    yield project
    project.clean()


def test_untracked_file_with_odd_name_stops_no_command(project: Project) -> None:
    promoted = project.lyra("build", "test", "promote")
    assert promoted.code == 0, promoted.text
    (bundle,) = (path for path in (project.root / "promotion" / "tiny").iterdir() if path.is_dir())
    assert "dirty" in bundle.name
    files = [
        path for path in (*bundle.rglob("*"), *project.state.rglob("*")) if path.is_file() and path.suffix != ".tar"
    ]
    texts = {
        path.name: path.read_bytes().decode() for path in files if path.suffix in {".json", ".jsonl", ".md", ".xml"}
    }
    assert json.dumps(ESCAPED)[1:-1] in texts["rules.json"]
    for arguments in (
        ["verify"],
        ["status", "--json"],
        ["doctor", "--json"],
        ["history", "--check"],
        ["create", "--dry-run"],
    ):
        result = project.lyra(*arguments)
        assert result.code in {0, 3} and "Traceback" not in result.text, result.text
    refused = project.lyra("release", "--dry-run")
    assert refused.code == 3 and "Traceback" not in refused.text


def test_file_with_odd_name_in_a_context_is_named(project: Project) -> None:
    odd = project.root / "app" / NAME
    odd.write_text("later")
    try:
        result = project.lyra("build")
    finally:
        odd.unlink()
    assert result.code == 0 or (result.code in {2, 3, 4} and "notes-caf" in result.text), result.text
    assert "Traceback" not in result.text
