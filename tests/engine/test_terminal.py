"""What a run shows: one live line on a terminal, plain lines elsewhere, nothing where nothing is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Project
from tests.engine.terminals import in_terminal

LIVE = re.compile(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] ([^\r\n\x1b]*)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    made = make_tiny()
    yield made
    made.clean()


def test_a_narrow_terminal_sees_what_goes_on_and_in_the_end_what_was_made(project: Project) -> None:
    seen = in_terminal(project, "build", "test", "promote", columns=80)
    assert seen.code == 0, seen.raw
    live = LIVE.findall(seen.raw)
    for going_on in ("building the images", "web: starting", "check 2 of 4", "taking the lab away", "packing web"):
        assert any(going_on in line for line in live), going_on
    assert any("1 passed" in line for line in live)
    assert any(re.search(r"\[[^\]]*\d/\d\] ", line) for line in live), "the step of the Dockerfile"
    assert max(len(line) + 2 for line in live) < 80, "a line that wraps cannot be written over"
    screen = "\n".join(seen.screen)
    for gone in ("building the images", "check 2 of 4", "⠋", "#1 "):
        assert gone not in screen
    for kept in ("ok   the page is there", "4 of 4 checks passed", "report.html", "promoted", "next: `verify`"):
        assert kept in screen
    assert "next: test" not in screen, "the line goes on by itself"


def test_a_wide_terminal_without_colours_has_live_lines_too(project: Project) -> None:
    seen = in_terminal(project, "test", columns=200, NO_COLOR="1")
    assert seen.code == 0, seen.raw
    assert not COLOUR.search(seen.raw)
    assert any("check 4 of 4: the volume can be written" in line for line in LIVE.findall(seen.raw))
    assert seen.screen[-1] == "next: promote to pack these very bytes into a bundle"


def test_elsewhere_there_are_plain_lines_and_with_quiet_none(project: Project) -> None:
    plain = project.lyra("build", "test", LC_ALL="C.UTF-8")
    assert plain.code == 0, plain.text
    assert not re.search(r"[\x1b\r⠋]", plain.text)
    assert "ok   the page is there" in plain.out
    quiet = project.lyra("build", "test", "promote", "--quiet")
    assert (quiet.code, quiet.out) == (0, "")
    assert all(line.startswith("warning: ") for line in quiet.err.splitlines()), quiet.err


def test_quiet_does_not_hide_a_fault_or_the_document(project: Project) -> None:
    fault = project.lyra("test", "--only", "nothing", "--quiet")
    assert fault.code == 2
    assert fault.err.startswith("error: there is no test named 'nothing'")
    document = project.lyra("build", "--quiet", "--json")
    assert document.out.startswith('{\n  "images"')
    assert all(line.startswith("warning: ") for line in document.err.splitlines()), document.err
