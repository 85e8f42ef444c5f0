"""What a terminal is sent: styles where it is one that knows them, and nobody has asked for none."""

from __future__ import annotations

import os
import pty

import pytest

from lyra_tasks.console.text import supports_colour


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_a_terminal_is_coloured_unless_it_is_dumb_or_somebody_wants_none(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    controller, end = pty.openpty()
    with os.fdopen(controller, "wb"), os.fdopen(end, "w") as terminal:
        assert supports_colour(terminal) == wanted


def test_what_is_no_terminal_is_not_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open(os.devnull, "w") as nowhere:
        assert not supports_colour(nowhere)
