"""Run programs and end what they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_CLIENT_PREFIXES = ("DOCKER_", "BUILDX_", "BUILDKIT_", "COMPOSE_")
_OWN_VARIABLES = frozenset({"DOCKER_HOST", "DOCKER_CONTEXT", "BUILDX_CONFIG"})
"""Lyra reads them itself, and passes on what it makes of them to the programs that are meant."""
_CREDENTIAL_VARIABLES = frozenset({"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG"})


def create_environment(variables: Mapping[str, str] | None = None, *, remove: Collection[str] = ()) -> dict[str, str]:
    """Return the environment of a program that Lyra starts: the user's with `variables`, and without `remove`.

    Of the variables for clients of Docker, only those with the user's credentials are inherited: another one, as dind
    or minikube leave them behind, would lead a client to another engine or builder, or change what it does there.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in remove}
    return {name: value for name, value in inherited.items() if not _is_left_out(name)} | dict(variables or {})


def list_ignored_variables() -> list[str]:
    """Return the variables for clients of Docker in the environment that have no effect in Lyra."""
    return sorted(name for name in os.environ if _is_left_out(name) and name not in _OWN_VARIABLES)


def _is_left_out(name: str) -> bool:
    return name.startswith(_CLIENT_PREFIXES) and name not in _CREDENTIAL_VARIABLES


def run_captured(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program without input and return its exit code and output; only a missing program or a timeout raises.

    Without an `environment`, it is that of `create_environment`.
    """
    return subprocess.run(
        command,
        cwd=directory,
        env=create_environment() if environment is None else environment,
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
