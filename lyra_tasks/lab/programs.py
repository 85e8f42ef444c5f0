"""Programs of this machine that a check runs: they end with the check, and so does all that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lyra_tasks.lab.halt import Halt
from lyra_tasks.rules.declared import without

TAIL = 15


@dataclass(frozen=True)
class Ended:
    """How a program ended and what it printed; `code` is None for one that did not end in time."""

    code: int | None
    text: str

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self.text.splitlines()[-TAIL:])

    def without(self, masked: Iterable[str]) -> Ended:
        """The same with secrets blotted out."""
        return replace(self, text=without(self.text, masked))


def run_program(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, timeout: float, halt: Halt
) -> Ended:
    """Run `command` in `folder`, with `environment` added to this process's own.

    One that does not end within `timeout` seconds is killed with all that it started in its session. What has left that
    runs on, and nobody waits for it: it may still hold the output, which is a file and no pipe for that reason.
    """
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
    ):

        def kill() -> None:
            """The program is the first of a session of its own, whose number is its own."""
            with suppress(ProcessLookupError, PermissionError):  # PermissionError: all of them are another user's
                os.killpg(child.pid, signal.SIGKILL)

        try:
            with halt.ending(kill, after=timeout) as late:
                child.wait()
        finally:
            # what it left in the background goes with it
            kill()
        halt.pass_by()
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    return Ended(None if late.is_set() else child.returncode, text)
