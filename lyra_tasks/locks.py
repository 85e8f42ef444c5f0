"""Run ids, and locks that the operating system releases: of active runs, of shared files, of private directories."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import LockedError

_START_TIME_FORMAT = "%Y%m%dt%H%M%S"  # the first half of a run id
_PRIVATE_PREFIX = "lyra-private-"
_LARGE_TEMPORARY_FILES = Path("/var/tmp")  # noqa: S108 - directories with random names are created in it
POLL_INTERVAL_S = 0.05
SILENT_WAIT_S = 0.5


def new_run_id() -> str:
    """Return a run id that sorts by time and is valid in any Docker name: `20261123t211504-3f99a1c`.

    Of the seven hex digits, three are a fraction of the second and four are random.
    """
    now = time.time()
    return f"{time.strftime(_START_TIME_FORMAT, time.gmtime(now))}-{int(now % 1 * 4096):03x}{secrets.token_hex(2)}"


def started_within(run_id: str, seconds: float) -> bool:
    """Return whether a run, by its id, started in the last `seconds`."""
    return run_id >= time.strftime(_START_TIME_FORMAT, time.gmtime(time.time() - seconds))


def run_locks_directory(state: Path) -> Path:
    """Return the directory with one lock per active run."""
    return state / "live"


def start_run(directory: Path, run_id: str) -> int:
    """Mark a run as active by a lock in `directory`; return its file descriptor."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / run_id
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _still_exists(fd):  # else another process removed it between the two calls
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
        os.close(fd)


def finish_run(directory: Path, run_id: str, fd: int) -> None:
    """Mark a run as finished."""
    (directory / run_id).unlink(missing_ok=True)
    os.close(fd)


def active_runs(directory: Path) -> dict[str, int]:
    """Return the active runs with their process ids; remove the locks of runs that have ended."""
    process_ids = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        with _open_existing(path) as fd:
            if fd is None:
                continue
            # A shared lock, so that two processes that look at once do not take each other for the run
            if not try_lock(fd, fcntl.LOCK_SH):
                pid = _read_pid(fd)
                process_ids[path.name] = int(pid) if pid.isdecimal() else 0
            elif try_lock(fd, fcntl.LOCK_EX) and _still_exists(fd):
                path.unlink(missing_ok=True)
    return process_ids


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock in `path`."""
    with _open_existing(path) as fd:
        return fd is not None and not try_lock(fd, fcntl.LOCK_SH)


@contextmanager
def lock_if_finished(path: Path) -> Iterator[bool]:
    """Yield whether the run has ended without removing its lock; if so, hold the lock during the block."""
    with _open_existing(path) as fd:
        yield fd is not None and try_lock(fd, fcntl.LOCK_EX) and _still_exists(fd)


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


def try_lock(fd: int, operation: int) -> bool:
    """Take a lock on an open file, unless another process holds it; return whether it is held now."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip()


def _still_exists(fd: int) -> bool:
    """Return whether the file still has a name; if not, the name may belong to another run by now."""
    return os.fstat(fd).st_nlink > 0


@contextmanager
def file_lock(path: Path, *, resource: str, timeout: float = 0.0) -> Iterator[int]:
    """Hold an exclusive lock on `path`, and yield its file descriptor.

    The lock ends with this process and with the children that inherit the descriptor.

    Raises:
        LockedError: Another process still holds the lock after `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                name, pid = resource[:1].upper() + resource[1:], _read_pid(fd) or "unknown"
                raise LockedError(f"{name} is in use by another process (pid {pid})", hint="Wait until it has finished")
            time.sleep(POLL_INTERVAL_S)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory_lock(directory: Path, *, is_shared: bool = False, purpose: str = "") -> Iterator[bool]:
    """Hold a lock on a directory, which leaves no file behind, and yield whether it is held.

    With a `purpose` it waits for other processes, and says so after half a second; without one it is tried once. It is
    always held on file systems that cannot lock a directory.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_held, silent_until = False, time.monotonic() + SILENT_WAIT_S
        while not (is_held := _try_directory_lock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)) and purpose:
            if silent_until and time.monotonic() >= silent_until:
                silent_until = 0.0
                console.info(f"Waiting for another process that uses {directory} for {purpose} …")
            time.sleep(POLL_INTERVAL_S)
        yield is_held
    finally:
        os.close(fd)


def _try_directory_lock(fd: int, operation: int) -> bool:
    try:
        return try_lock(fd, operation)
    except OSError:  # NFS locks only files that are open for writing
        return True


def create_private_directory(purpose: str, *, is_large: bool = False) -> tuple[Path, int]:
    """Create a temporary directory for this process alone; return it with the descriptor that marks it as used.

    One that `is_large` is not in memory. Directories of killed processes are removed.
    """
    remove_stale_directories()
    parent = _LARGE_TEMPORARY_FILES if is_large and os.access(_LARGE_TEMPORARY_FILES, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix=f"{_PRIVATE_PREFIX}{purpose}-{os.getpid()}-", dir=parent))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _try_directory_lock(fd, fcntl.LOCK_SH)
    return directory, fd


def remove_private_directory(directory: Path, fd: int) -> None:
    """Remove a directory that `create_private_directory` has created."""
    shutil.rmtree(directory, ignore_errors=True)
    os.close(fd)


@contextmanager
def private_directory(purpose: str, *, is_large: bool = False) -> Iterator[Path]:
    """Create a temporary directory for this process alone, and remove it at the end of the block."""
    directory, fd = create_private_directory(purpose, is_large=is_large)
    try:
        yield directory
    finally:
        remove_private_directory(directory, fd)


def remove_stale_directories() -> None:
    """Remove the private directories of killed processes of this user.

    A container may have the same temporary directory, but other process ids: there, only the lock says who lives.
    """
    for directory in _find_abandoned_directories():
        with suppress(OSError), directory_lock(directory) as is_free:
            if is_free:
                shutil.rmtree(directory, ignore_errors=True)


def list_stale_directories() -> list[Path]:
    """Return the private directories of killed processes of this user."""
    stale = []
    for directory in _find_abandoned_directories():
        with suppress(OSError), directory_lock(directory) as is_free:
            stale += [directory] if is_free else []
    return stale


def _find_abandoned_directories() -> Iterator[Path]:
    """Yield the private directories of this user whose process is not one of this system any more."""
    parents = {Path(tempfile.gettempdir()), _LARGE_TEMPORARY_FILES}
    for directory in chain.from_iterable(parent.glob(f"{_PRIVATE_PREFIX}*-*-*") for parent in parents):
        pid = directory.name.split("-")[-2]
        if Path("/proc", pid).exists() or not Path("/proc/self").exists():
            continue
        with suppress(OSError):
            if not directory.is_symlink() and directory.stat().st_uid == os.geteuid():
                yield directory
