"""Stop a private engine and remove all of it, also after a crash or a failed start."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lyra_tasks.engine.sandbox.cgroups import kill_container_processes, remove_cgroup
from lyra_tasks.engine.sandbox.layout import (
    SandboxPaths,
    SandboxRecord,
    is_sandbox_process_alive,
    read_parent_pid,
    read_sandbox_record,
)
from lyra_tasks.engine.sandbox.network import remove_uplink
from lyra_tasks.errors import EngineUnavailableError, LeftoverError
from lyra_tasks.locks import file_lock

_STOP_TIMEOUT_S = 15.0  # the daemon writes its databases
_LOCK_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class StopReport:
    """The result of stopping a sandbox; `leftovers` are paths that could not be removed."""

    was_running: bool
    was_killed: bool
    was_purged: bool
    leftovers: tuple[str, ...] = ()


def shut_down_sandbox(state: Path, *, purge: bool = False) -> StopReport:
    """Stop the engine of a state directory with all its containers, and remove what a crash may have left.

    `purge` also deletes its images and volumes.
    """
    paths = SandboxPaths(state)
    if not paths.state.is_dir():
        return StopReport(was_running=False, was_killed=False, was_purged=False)
    with file_lock(paths.lock, resource="the private engine", timeout=_LOCK_TIMEOUT_S):
        report = clear_sandbox(paths)
        was_purged, leftovers = purge and paths.directory.exists(), report.leftovers
        if was_purged:
            shutil.rmtree(paths.directory, ignore_errors=True)
            leftovers += (str(paths.directory),) if paths.directory.exists() else ()
    return replace(report, was_purged=was_purged, leftovers=leftovers)


def clear_sandbox(paths: SandboxPaths) -> StopReport:
    """Stop the processes and remove what is outside the state directory. The caller holds the sandbox's lock."""
    record = read_sandbox_record(paths)
    was_running = was_killed = False
    if record is not None:
        was_running = is_sandbox_process_alive(record)
        if was_running and os.geteuid() != 0:
            raise EngineUnavailableError("The private engine runs as root", hint="Run this command as root")
        was_killed = was_running and _end_processes(paths, record)
        remove_uplink(paths.engine, record.link, paths.name)
    leftovers = [str(path) for path in remove_cgroup(paths.name)]
    if paths.runtime.exists():
        shutil.rmtree(paths.runtime)
    paths.record.unlink(missing_ok=True)
    return StopReport(was_running, was_killed, was_purged=False, leftovers=tuple(leftovers))


def _end_processes(paths: SandboxPaths, record: SandboxRecord) -> bool:
    """Stop the first process and with it all others; return whether it had to be killed."""
    parent = read_parent_pid(record.pid)
    with _open_pidfd(record.pid) as process, _open_pidfd(parent) as launcher:
        if process is None or not is_sandbox_process_alive(record):
            return False
        kill_container_processes(paths.name)
        _send_signal(process, signal.SIGTERM)
        was_killed = not _wait_for_exit(process)
        if was_killed:
            _send_signal(process, signal.SIGKILL)
            _wait_for_exit(process)
        if launcher is not None:
            _wait_for_exit(launcher)
    return was_killed


@contextmanager
def _open_pidfd(pid: int | None) -> Iterator[int | None]:
    """Open a descriptor of a process, which unlike its id is never reused; None if the process does not exist."""
    handle = None
    if pid is not None:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def require_clean_stop(report: StopReport) -> None:
    """Raise LeftoverError if something of a stopped sandbox could not be removed."""
    if report.leftovers:
        raise LeftoverError(
            f"Cannot remove {len(report.leftovers)} leftover(s) of the private engine",
            hint="Remove them by hand",
            details=report.leftovers,
        )


def _send_signal(handle: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _wait_for_exit(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(_STOP_TIMEOUT_S * 1000))
