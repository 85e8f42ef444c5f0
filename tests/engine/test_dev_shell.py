"""`dev.shell` in a real terminal: window size, keys, exit codes, and terminal settings afterwards."""

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
        self.controller, self.terminal = pty.openpty()
        self.resize(20, 70)
        self.before = termios.tcgetattr(self.terminal)
        self.output = ""
        self.process = subprocess.Popen(
            project.command("dev.shell", "--service", "web"),
            cwd=project.root,
            env={**project.environment, "TERM": "vt100"},
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, lines: int, columns: int) -> None:
        """Change the window size."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type text."""
        os.write(self.controller, text.encode())

    def read_until(self, text: str, timeout: float = 20.0) -> str:
        """Return the output up to `text`; fail if it does not appear."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            readable, _, _ = select.select([self.controller], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{text!r} is not in {self.output!r}"
            self.output += os.read(self.controller, 4096).decode(errors="replace")
        output, _, self.output = self.output.partition(text)
        return output

    def close(self) -> None:
        """Kill the shell and close the terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self.controller)
        os.close(self.terminal)


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Iterator[Project]:
    """A project with a development environment."""
    directory = tmp_path_factory.mktemp("shell")
    shutil.copytree(PROJECTS / "devtiny", directory / "project")
    shutil.copytree(busybox, directory / "project" / "app" / "bin", symlinks=True)
    project = repository(directory / "project", directory, cache, box)
    created = project.lyra("create", "--service", "web")
    assert created.code == 0, created.text
    yield project
    project.clean()


@pytest.fixture
def terminal(lab: Project) -> Iterator[Terminal]:
    """A shell that shows its prompt."""
    terminal = Terminal(lab)
    try:
        terminal.read_until("$ ")
        yield terminal
    finally:
        terminal.close()


def test_shell_starts_in_source_with_window_size(terminal: Terminal) -> None:
    terminal.type("pwd; busybox stty size; echo $TERM\r")
    output = terminal.read_until("vt100")
    assert "/src" in output
    assert "20 70" in output
    terminal.resize(33, 101)
    time.sleep(0.5)
    terminal.type("busybox stty size\r")
    terminal.read_until("33 101")


def test_ctrl_c_ends_command_not_shell(terminal: Terminal) -> None:
    terminal.type("sleep 60\r")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.type("echo still $((1 + 1))\r")
    terminal.read_until("still 2")
    assert terminal.process.poll() is None


def test_shell_exit_code_is_returned_and_terminal_restored(terminal: Terminal) -> None:
    assert termios.tcgetattr(terminal.terminal) != terminal.before, "the terminal is in raw mode"
    terminal.type("exit 9\r")
    assert terminal.process.wait(20) == 9
    assert termios.tcgetattr(terminal.terminal) == terminal.before


def test_shell_without_terminal_hints_at_dev_exec(lab: Project) -> None:
    result = lab.lyra("dev.shell")
    assert result.code == 3
    assert "dev.exec -- COMMAND" in result.err


def test_terminal_is_restored_when_container_is_removed(terminal: Terminal, lab: Project) -> None:
    assert lab.lyra("dev.stop").code == 0
    terminal.process.wait(20)
    assert termios.tcgetattr(terminal.terminal) == terminal.before
