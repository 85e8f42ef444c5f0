"""Ending a sandbox engine so that nothing of it is left: the same steps after a crash, a failed start, and `down`."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.sandbox import cgroups, network
from lyra_tasks.engine.sandbox.layout import Places, Record, is_alive, parent_of, places_of, read_record
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.run import locked

_GRACE = 15.0  # seconds the daemon has for writing its databases
_LOCK_WAIT = 180.0


@dataclass(frozen=True)
class DownReport:
    """What `down` did: whether an engine ran, whether it had to be killed, whether its data went, and what is left."""

    was_running: bool
    killed: bool
    purged: bool
    left: tuple[str, ...] = ()


def down(state: Path, *, purge: bool = False) -> DownReport:
    """End the engine of a state folder with all its containers; `purge` also deletes its images and volumes.

    Not an error if none runs: what a crash left is cleared then. The data of an engine that is not purged stays.
    """
    places = places_of(state)
    if not places.state.is_dir():
        return DownReport(was_running=False, killed=False, purged=False)
    with locked(places.lock, what="the sandbox engine", wait=_LOCK_WAIT):
        report = clear(places)
        purged, left = purge and places.folder.exists(), report.left
        if purged:
            shutil.rmtree(places.folder, ignore_errors=True)
            left += (str(places.folder),) if places.folder.exists() else ()
    return DownReport(report.was_running, report.killed, purged, left)


def clear(places: Places) -> DownReport:
    """End what runs and remove what is left outside the state folder. The caller holds the sandbox's lock."""
    record = read_record(places)
    running = record is not None and is_alive(record)
    if running and os.geteuid() != 0:
        raise EngineUnavailableError("the sandbox engine belongs to root", hint="run this as root")
    killed = _end(places, record) if running and record is not None else False
    if record is not None:
        network.disconnect(places.engine, record.link, places.name)
    left = [str(path) for path in cgroups.remove(places.name)]
    if places.runtime.exists():
        shutil.rmtree(places.runtime)
    places.record.unlink(missing_ok=True)
    return DownReport(was_running=running, killed=killed, purged=False, left=tuple(left))


def _end(places: Places, record: Record) -> bool:
    """End the first process, and with it all others of the sandbox; True if it had to be killed."""
    parent = parent_of(record.pid)
    with _handle(record.pid) as process, _handle(parent) as launcher:
        if process is None or not is_alive(record):
            return False
        cgroups.kill_containers(places.name)
        _signal(process, signal.SIGTERM)
        killed = not _ended(process, _GRACE)
        if killed:
            _signal(process, signal.SIGKILL)
            _ended(process, _GRACE)
        if launcher is not None:
            _ended(launcher, _GRACE)
    return killed


@contextmanager
def _handle(pid: int | None) -> Iterator[int | None]:
    """A descriptor of a process, which unlike its number never comes to mean another one; None if it is gone."""
    handle = None
    if pid is not None:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _signal(handle: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _ended(handle: int, wait: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(wait * 1000))
