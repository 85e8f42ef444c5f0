"""Run programs and end what they started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lyra_tasks.redaction import create_redactor

T = TypeVar("T")
MAX_OUTPUT_BYTES = 2 * 1024**2
_CLIENT_PREFIXES = ("DOCKER_", "BUILDX_", "BUILDKIT_", "COMPOSE_")
_OWN_VARIABLES = frozenset(
    {"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH", "BUILDX_CONFIG"}
)
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
    umask: int = -1,
) -> subprocess.CompletedProcess[str]:
    """Run a program without input and return its exit code and output; only a missing program or a timeout raises.

    Without an `environment`, it is that of `create_environment`.
    """
    return subprocess.run(
        command,
        cwd=directory,
        env=create_environment() if environment is None else environment,
        timeout=timeout,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def call_with_timeout(timeout: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, or raise TimeoutError without waiting for its thread any longer."""
    done: Future[T] = Future()

    def run_call() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run_call, daemon=True).start()
    return done.result(timeout)


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


class BoundedOutput:
    """The beginning and the end of a program's output, within a limit of memory, and how much was dropped between."""

    def __init__(self, max_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self._max_bytes = max_bytes // 2
        self._head, self._tail = bytearray(), bytearray()
        self.dropped_bytes = 0

    def write(self, data: bytes) -> None:
        """Add output; from the middle of more than the limit, the oldest is dropped."""
        free = max(0, self._max_bytes - len(self._head))
        self._head += data[:free]
        self._tail += data[free:]
        if len(self._tail) > 2 * self._max_bytes:  # not at each call, since it moves the rest
            self._drop()

    def text(self, secret_values: Iterable[str] = ()) -> str:
        """Return the output; only one that was too long is redacted, since parts of a secret are not recognised."""
        self._drop()
        if self.dropped_bytes:
            return self.redacted_text(secret_values)
        return (self._head + self._tail).decode(errors="replace")

    def redacted_text(self, secret_values: Iterable[str]) -> str:
        """Return the output with secrets redacted; a notice stands for what was dropped."""
        self._drop()
        redactor = create_redactor(tuple(secret_values))
        if not self.dropped_bytes:
            return redactor.redact_bytes(bytes(self._head + self._tail)).decode(errors="replace")
        margin = redactor.max_spelling_bytes
        head = redactor.redact_bytes(bytes(self._head))
        head, tail = head[: len(head) - margin], redactor.redact_bytes(bytes(self._tail))[margin:]
        notice = f"\n[lyra: {self.dropped_bytes + 2 * margin} bytes left out]\n".encode()
        return (head + notice + tail).decode(errors="replace")

    def _drop(self) -> None:
        excess = len(self._tail) - self._max_bytes
        if excess > 0:
            del self._tail[:excess]
            self.dropped_bytes += excess
