"""The commit-msg hook accepts Conventional Commits alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[1] / ".ci" / "commit-subject"


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("fix(bundle): refuse a manifest without images", 0),
        ("refactor!: rename the rooms", 0),
        ("# a comment of git\n\ndocs: explain packs", 0),
        ("Merge branch 'main'", 0),
        ("A check that a dying service took down", 1),
        ("fix refuse a manifest", 1),
        ("feature: packs", 1),
        ("fix: " + "long " * 30, 1),
    ],
)
def test_commit_subject_must_be_conventional(tmp_path: Path, subject: str, code: int) -> None:
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\nbody\n")
    result = subprocess.run([HOOK, message], capture_output=True, text=True)
    assert result.returncode == code, result.stderr
