"""Tests of parsing commit messages."""

from __future__ import annotations

import pytest

from lyra_tasks.versions.changelog import Commit, parse_commit

ID = "a1b2c3d" + "0" * 33


@pytest.mark.parametrize(
    ("message", "commit_type", "scope", "subject", "breaking"),
    [
        ("feat: greet by name", "feat", "", "greet by name", ""),
        ("feat(web): greet\n\nMore of it.\n", "feat", "web", "greet", ""),
        ("FIX(Web UI): it", "fix", "Web UI", "it", ""),
        ("feat!: drop the old API", "feat", "", "drop the old API", "drop the old API"),
        ("chore(api)!: drop it", "chore", "api", "drop it", "drop it"),
        ("fix: x\n\nbody\n\nBREAKING CHANGE: the port is another\n", "fix", "", "x", "the port is another"),
        ("fix!: x\n\nBREAKING-CHANGE: y", "fix", "", "x", "y"),
        ("fix: x\n\nbreaking change: only upper case counts", "fix", "", "x", ""),
        ("fix: x\n\nNo BREAKING CHANGE: here", "fix", "", "x", ""),
        ("Change the port\n\nBREAKING CHANGE: it is 81", "", "", "Change the port", "it is 81"),
        ("feat add", "", "", "feat add", ""),
        ("feat:add", "", "", "feat:add", ""),
        ("feat(): add", "", "", "feat(): add", ""),
        ("feat :x", "", "", "feat :x", ""),
        ("Merge: two things", "merge", "", "two things", ""),
        ("\n\nfix: leading lines\n", "fix", "", "leading lines", ""),
        ("", "", "", "", ""),
    ],
)
def test_message_is_parsed_by_convention_or_kept(
    message: str, commit_type: str, scope: str, subject: str, breaking: str
) -> None:
    assert parse_commit(ID, message) == Commit(ID, commit_type, scope, subject, breaking)


def test_commit_summary_has_short_id_and_scope() -> None:
    assert parse_commit(ID, "feat(web): greet").short_id == "a1b2c3d"
    assert parse_commit(ID, "feat(web): greet").summary == "web: greet"
    assert parse_commit(ID, "greet").summary == "greet"
