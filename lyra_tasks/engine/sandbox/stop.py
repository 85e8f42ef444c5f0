"""Stop a private engine and remove all of it, also after a crash or a failed start."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lyra_tasks.engine.sandbox.cgroups import kill_container_processes, kill_remaining_processes, remove_cgroup
from lyra_tasks.engine.sandbox.layout import (
    SandboxPaths,
    is_sandbox_process_alive,
    read_marker,
    read_parent_pid,
    read_sandbox_record,
    read_start_ticks,
)
from lyra_tasks.engine.sandbox.network import remove_uplink
from lyra_tasks.engine.sandbox.stray import find_stray_sandbox
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
    if not (paths.state.is_dir() or paths.runtime.exists() or find_stray_sandbox(state)):
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
    records = [record for record in (read_sandbox_record(paths), read_marker(paths)) if record is not None]
    pid = next((record.pid for record in records if is_sandbox_process_alive(record)), None)
    if pid is None and (stray := find_stray_sandbox(paths.state)):
        pid = stray.pid
    if pid is not None and os.geteuid() != 0:
        raise EngineUnavailableError(
            f"The private engine (pid {pid}) runs as root", hint="Run this command as root, for example with `sudo -E`"
        )
    was_killed = pid is not None and _end_processes(paths, pid)
    for link in {record.link for record in records}:
        remove_uplink(paths.engine, link, paths.name)
    leftovers = [str(path) for path in remove_cgroup(paths.name)]
    shutil.rmtree(paths.runtime, ignore_errors=True)
    leftovers += [str(paths.runtime)] if paths.runtime.exists() else []
    paths.record.unlink(missing_ok=True)
    return StopReport(pid is not None, was_killed, was_purged=False, leftovers=tuple(leftovers))


def _end_processes(paths: SandboxPaths, pid: int) -> bool:
    """Stop the first process and with it all others; return whether any had to be killed."""
    start_ticks, parent = read_start_ticks(pid), read_parent_pid(pid)
    with _open_pidfd(pid) as process, _open_pidfd(parent) as launcher:
        if process is None or start_ticks is None or read_start_ticks(pid) != start_ticks:
            return False
        kill_container_processes(paths.name)
        _send_signal(process, signal.SIGTERM)
        was_killed = not _wait_for_exit(process)
        if was_killed:
            _send_signal(process, signal.SIGKILL)
            _wait_for_exit(process)
        if launcher is not None:
            _wait_for_exit(launcher)
    return kill_remaining_processes(paths.name) or was_killed


@contextmanager
def _open_pidfd(pid: int | None) -> Iterator[int | None]:
    """Open a descriptor of a process, which unlike its id is never reused; None if the process does not exist."""
    handle = _find_process(pid) if pid is not None else None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _find_process(pid: int) -> int | None:
    if sys.platform == "linux":
        with suppress(ProcessLookupError):
            return os.pidfd_open(pid)
    return None


def require_clean_stop(report: StopReport) -> None:
    """Raise LeftoverError if something of a stopped sandbox could not be removed."""
    if report.leftovers:
        raise LeftoverError(
            f"Cannot remove {len(report.leftovers)} leftover(s) of the private engine",
            hint="Remove them by hand",
            details=report.leftovers,
        )


def _send_signal(handle: int, number: signal.Signals) -> None:
    if sys.platform == "linux":
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def _wait_for_exit(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(_STOP_TIMEOUT_S * 1000))
