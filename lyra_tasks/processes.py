"""Run programs and end what they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def run_captured(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program without input and return its exit code and output; only a missing program or a timeout raises."""
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def signal_session(leader: int, number: signal.Signals) -> None:
    """Send a signal to all processes of the session that the process `leader` has started."""
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: every process belongs to another user
        os.killpg(leader, number)


def list_ancestors(pid: int) -> list[int]:
    """Return the processes that a process descends from, its parent first; none where there is no `/proc`."""
    ancestors: list[int] = []
    with suppress(OSError):
        while pid > 1:
            # the second field is the command name in parentheses, which may contain blanks and parentheses
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            pid = int(fields[1])
            ancestors.append(pid)
    return ancestors
