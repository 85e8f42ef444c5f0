"""A command line in a pseudo-terminal, and the screen as somebody sees it at the end."""

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
class Seen:
    """What came out of the terminal, and how the command ended."""

    code: int
    raw: str
    columns: int

    @property
    def screen(self) -> list[str]:
        """The lines that are left to see, with those that have scrolled away."""
        screen = pyte.Screen(self.columns, 400)
        pyte.Stream(screen).feed(self.raw)
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def in_terminal(project: Project, *words: str, columns: int, **environment: str) -> Seen:
    """Run the program with `words` in a terminal of 30 lines."""
    controller, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        project.command(*words),
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
    return Seen(process.wait(60), raw.decode(), columns)
