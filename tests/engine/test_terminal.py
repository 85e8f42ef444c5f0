"""The output of a run: progress lines on a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Project
from tests.engine.terminals import TerminalOutput, in_terminal

LIVE = re.compile(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] ([^\r\n]*)")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def live_lines(output: TerminalOutput) -> list[str]:
    return LIVE.findall(CONTROL.sub("", output.raw))


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    project = make_tiny()
    yield project
    project.clean()


def test_narrow_terminal_shows_progress_and_result(project: Project) -> None:
    output = in_terminal(project, "build", "test", "promote", columns=80)
    assert output.code == 0, output.raw
    live = live_lines(output)
    for activity in ("building web", "web: starting", "check 2 of 4", "removing the environment", "packing web"):
        assert any(activity in line for line in live), activity
    assert any("1 passed" in line for line in live)
    assert any(re.search(r"\[[^\]]*\d/\d\] ", line) for line in live), "the step of the Dockerfile"
    assert max(len(line) + 2 for line in live) <= 80, "a line that wraps cannot be redrawn"
    screen = "\n".join(output.screen)
    for erased in ("building web", "check 2 of 4", "⠋", "#1 "):
        assert erased not in screen
    for text in ("ok   the page is there", "4 of 4 checks passed", "report.html", "promoted", "next: `lyra verify`"):
        assert text in screen
    assert "next: `lyra test`" not in screen, "the command line continues"


def test_wide_terminal_without_colours_shows_progress(project: Project) -> None:
    output = in_terminal(project, "test", "--fresh", columns=200, NO_COLOR="1")
    assert output.code == 0, output.raw
    assert not COLOUR.search(output.raw)
    assert any("check 4 of 4: the volume can be written" in line for line in live_lines(output))
    assert output.screen[-1] == "next: `lyra promote` to create a bundle of these images"


def test_plain_lines_without_terminal_and_none_with_quiet(project: Project) -> None:
    plain = project.lyra("build", "test", LC_ALL="C.UTF-8")
    assert plain.code == 0, plain.text
    assert not re.search(r"[\x1b\r⠋]", plain.text)
    assert "ok   the page is there" in plain.out
    quiet = project.lyra("build", "test", "promote", "--quiet")
    assert (quiet.code, quiet.out) == (0, "")
    assert all(line.startswith("warning: ") for line in quiet.err.splitlines()), quiet.err


def test_quiet_keeps_errors_and_json(project: Project) -> None:
    error = project.lyra("test", "--only", "nothing", "--quiet")
    assert error.code == 2
    assert error.err.startswith("error: Unknown test 'nothing'")
    document = project.lyra("build", "--quiet", "--json")
    assert document.out.startswith('{\n  "images"')
    assert all(line.startswith("warning: ") for line in document.err.splitlines()), document.err
