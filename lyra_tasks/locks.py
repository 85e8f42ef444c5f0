"""Locks that the operating system frees: of runs that are active, and of shared files."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.errors import LockedError

_START_TIME_FORMAT = "%Y%m%dt%H%M%S"  # the first half of a run id


def new_run_id() -> str:
    """A run id that sorts by time and is a valid part of any Docker name: `20261123t211504-3f99a1c`.

    Three digits are a fraction of the second, so that of two within one the later comes last; four tell runs apart.
    """
    now = time.time()
    return f"{time.strftime(_START_TIME_FORMAT, time.gmtime(now))}-{int(now % 1 * 4096):03x}{secrets.token_hex(2)}"


def started_within(run_id: str, seconds: float) -> bool:
    """Whether a run is no older than that, as its id says."""
    return run_id >= time.strftime(_START_TIME_FORMAT, time.gmtime(time.time() - seconds))


def run_locks_directory(state: Path) -> Path:
    """Where a state folder has one lock per run that is going on."""
    return state / "live"


def start_run(directory: Path, run_id: str) -> int:
    """Mark a run as going on, by a lock in `folder` that the operating system frees; returns the lock's handle."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / run_id
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _still_exists(fd):  # else it was swept between the two calls
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
        os.close(fd)


def finish_run(directory: Path, run_id: str, fd: int) -> None:
    """Mark a run as ended."""
    (directory / run_id).unlink(missing_ok=True)
    os.close(fd)


class RunLocks:
    """The runs of this process that are going on, each marked once, whoever asks for it, from whichever thread.

    A second lock on the same file would wait for the first, which this process holds itself.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[str, int] = {}
        self._lock = threading.Lock()

    def __contains__(self, run: str) -> bool:
        return run in self._fds

    def acquire(self, *runs: str) -> None:
        """Mark runs as going on, those that are not yet."""
        with self._lock:
            for run in runs:
                if run not in self._fds:
                    self._fds[run] = start_run(self._directory, run)

    def release(self) -> None:
        """Mark all of them as ended."""
        with self._lock:
            while self._fds:
                run, fd = self._fds.popitem()
                finish_run(self._directory, run, fd)


def active_runs(directory: Path) -> dict[str, int]:
    """The runs that are going on, and their processes; what is left of those that have ended is swept."""
    process_ids = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        with _open_existing(path) as fd:
            if fd is None:
                continue
            # shared, so that others who look at this moment do not take this process for the run
            if not _try_lock(fd, fcntl.LOCK_SH):
                content = os.pread(fd, 32, 0).decode(errors="replace").strip()
                process_ids[path.name] = int(content) if content.isdecimal() else 0
            elif _try_lock(fd, fcntl.LOCK_EX) and _still_exists(fd):
                path.unlink(missing_ok=True)
    return process_ids


@contextmanager
def lock_if_finished(path: Path) -> Iterator[bool]:
    """Whether the run behind a lock has ended and left it; then nobody else takes it while the block runs."""
    with _open_existing(path) as fd:
        yield fd is not None and _try_lock(fd, fcntl.LOCK_EX) and _still_exists(fd)


@contextmanager
def _open_existing(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_exists(fd: int) -> bool:
    """Whether the file still has a name; if not, it was swept, and the name may be another run's by now."""
    return os.fstat(fd).st_nlink > 0


@contextmanager
def file_lock(path: Path, *, resource: str, timeout: float = 0.0) -> Iterator[int]:
    """Hold an exclusive lock on `path` that dies with the process, and with children that are given the handle.

    Waits up to `wait` seconds; then `LockedError` names `what` and the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise LockedError(
                        f"{resource} is in use by another process (pid {holder})", hint="wait until it has finished"
                    ) from error
                time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)
