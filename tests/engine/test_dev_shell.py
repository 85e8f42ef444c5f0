"""dev.shell through a real terminal: sizes, keys, exit codes, and the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import PROJECTS, Project, repository


class Terminal:
    """`dev.shell` in a pseudo-terminal of 20 lines and 70 columns."""

    def __init__(self, project: Project) -> None:
        self.controller, self.end = pty.openpty()
        self.resize(20, 70)
        self.before = termios.tcgetattr(self.end)
        self.seen = ""
        self.process = subprocess.Popen(
            project.command("dev.shell", "--service", "web"),
            cwd=project.root,
            env={**project.environment, "TERM": "vt100"},
            stdin=self.end,
            stdout=self.end,
            stderr=self.end,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, lines: int, columns: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.controller, text.encode())

    def until(self, text: str, seconds: float = 20.0) -> str:
        """What is shown up to `text`; fails if it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            readable, _, _ = select.select([self.controller], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{text!r} is not in {self.seen!r}"
            self.seen += os.read(self.controller, 4096).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.process.kill()
        self.process.wait()
        os.close(self.controller)
        os.close(self.end)


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Iterator[Project]:
    """A project with a development lab."""
    folder = tmp_path_factory.mktemp("shell")
    shutil.copytree(PROJECTS / "devtiny", folder / "project")
    shutil.copytree(busybox, folder / "project" / "app" / "bin", symlinks=True)
    project = repository(folder / "project", folder, cache, box)
    created = project.lyra("create", "--service", "web")
    assert created.code == 0, created.text
    yield project
    project.clean()


@pytest.fixture
def terminal(lab: Project) -> Iterator[Terminal]:
    """A shell that is ready for keys."""
    made = Terminal(lab)
    try:
        made.until("$ ")
        yield made
    finally:
        made.close()


def test_the_shell_is_in_the_source_has_the_windows_size_and_follows_it(terminal: Terminal) -> None:
    terminal.type("pwd; busybox stty size; echo $TERM\r")
    shown = terminal.until("vt100")
    assert "/src" in shown
    assert "20 70" in shown
    terminal.resize(33, 101)
    time.sleep(0.5)
    terminal.type("busybox stty size\r")
    terminal.until("33 101")


def test_ctrl_c_ends_the_command_in_the_shell_and_not_the_shell(terminal: Terminal) -> None:
    terminal.type("sleep 60\r")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.type("echo still $((1 + 1))\r")
    terminal.until("still 2")
    assert terminal.process.poll() is None


def test_the_shells_exit_code_is_passed_on_and_the_terminal_is_as_it_was(terminal: Terminal) -> None:
    assert termios.tcgetattr(terminal.end) != terminal.before, "keys go through as they are typed"
    terminal.type("exit 9\r")
    assert terminal.process.wait(20) == 9
    assert termios.tcgetattr(terminal.end) == terminal.before


def test_the_terminal_is_given_back_when_the_container_is_taken_away(terminal: Terminal, lab: Project) -> None:
    assert lab.lyra("dev.stop").code == 0
    terminal.process.wait(20)
    assert termios.tcgetattr(terminal.end) == terminal.before
    assert lab.lyra("create", "--service", "web").code == 0


def test_without_a_terminal_it_says_what_to_use_instead(lab: Project) -> None:
    refused = lab.lyra("dev.shell")
    assert refused.code == 3
    assert "dev.exec -- COMMAND" in refused.err
