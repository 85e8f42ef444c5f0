"""Run a command line in a pseudo-terminal, and read its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from dataclasses import dataclass

import pyte

from tests.conftest import Project


@dataclass(frozen=True)
class TerminalOutput:
    """The output of a command in a terminal, and its exit code."""

    code: int
    raw: str
    columns: int

    @property
    def screen(self) -> list[str]:
        """Return the final lines, with those that have scrolled away."""
        screen = pyte.Screen(self.columns, 400)
        pyte.Stream(screen).feed(self.raw)
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def in_terminal(project: Project, *arguments: str, columns: int, **environment: str) -> TerminalOutput:
    """Run the program with `arguments` in a terminal of 30 lines."""
    controller, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        project.command(*arguments),
        cwd=project.root,
        env={**project.environment, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment},
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    raw = b""
    while True:
        try:
            chunk = os.read(controller, 1 << 16)
        except OSError:
            break  # the other end is closed
        raw += chunk
    os.close(controller)
    return TerminalOutput(process.wait(60), raw.decode(), columns)
