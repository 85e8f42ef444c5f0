"""Colours are used on terminals that support them, unless NO_COLOR is set; lines are wrapped between words."""

from __future__ import annotations

import os
import pty

import pytest

from lyra_tasks.console.text import apply_style, format_count, supports_colour, wrap_lines


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_terminal_supports_colour_unless_dumb_or_no_color(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    controller, end = pty.openpty()
    with os.fdopen(controller, "wb"), os.fdopen(end, "w") as terminal:
        assert supports_colour(terminal) == expected


def test_file_does_not_support_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open(os.devnull, "w") as file:
        assert not supports_colour(file)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("short", "short"),
        ("some words that do not fit", "some words that do\nnot fit"),
        ("  an indented line of words", "  an indented line\n  of words"),
        ("ok    a diagnosis of words", "ok    a diagnosis\n      of words"),
        ("see /a/path/that/is/long/file here", "see\n/a/path/that/is/long/file\nhere"),
        ("image  was 30.0 MiB", "image  was\n       30.0 MiB"),
        (apply_style("ok", "green") + "  words that do not fit", "\x1b[32mok\x1b[0m  words that\n    do not fit"),
    ],
)
def test_wrapped_line_is_broken_between_words(line: str, expected: str) -> None:
    assert wrap_lines(line, 18) == expected


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1.0, "CPU", "1 CPU"),
        (0.5, "CPU", "0.5 CPUs"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
        (5, "process", "5 processes"),
        (2, "more change", "2 more changes"),
        (1234567, "file", "1234567 files"),
    ],
)
def test_noun_agrees_with_its_number(count: float, noun: str, text: str) -> None:
    assert format_count(count, noun) == text
