"""Run ids, and locks that the operating system releases: of active runs, of tasks, and of shared files."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import LockedError
from lyra_tasks.processes import list_ancestors

_START_TIME_FORMAT = "%Y%m%dt%H%M%S"  # the first half of a run id
_TASKS_THAT_RUN_ALONE = frozenset({"clean", "engine.down"})
_TASKS_THAT_BUILD = frozenset({"build", "bases.build", "bases.update"})
_POLL_INTERVAL_S = 0.05
_SILENT_WAIT_S = 0.5


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


class RunLocks:
    """The locks of this process's active runs; thread-safe.

    Each lock is taken once, since a second one on the same file would wait for the first for ever.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[str, int] = {}
        self._holds: list[ExitStack] = []
        self._lock = threading.Lock()

    def __contains__(self, run: str) -> bool:
        return run in self._fds

    def acquire(self, *runs: str) -> None:
        """Mark runs as active, unless they are."""
        with self._lock:
            for run in runs:
                if run not in self._fds:
                    self._fds[run] = start_run(self._directory, run)

    @contextmanager
    def running_task(self, task: str, run: str, *, is_between: bool = False) -> Iterator[None]:
        """Hold the checkout for a task, as `hold_task` does, and mark its run as active.

        When the last task of this process ends, all its runs are finished.
        """
        with ExitStack() as hold:
            hold.enter_context(hold_task(self._directory.parent, task, run, is_between=is_between))
            with self._lock:
                self._holds.append(hold)
            if not runs_alone(task):
                self.acquire(run)
            try:
                yield
            finally:
                with self._lock:
                    self._holds = [other for other in self._holds if other is not hold]
                    is_last = not self._holds
                if is_last:
                    self.release()

    def release(self) -> None:
        """Mark all runs as finished, and let go of the checkout."""
        with self._lock:
            while self._fds:
                run, fd = self._fds.popitem()
                finish_run(self._directory, run, fd)
            while self._holds:
                self._holds.pop().close()


def active_runs(directory: Path) -> dict[str, int]:
    """Return the active runs with their process ids; remove the locks of runs that have ended."""
    process_ids = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        with _open_existing(path) as fd:
            if fd is None:
                continue
            # A shared lock, so that two processes that look at once do not take each other for the run
            if not _try_lock(fd, fcntl.LOCK_SH):
                pid = _read_pid(fd)
                process_ids[path.name] = int(pid) if pid.isdecimal() else 0
            elif _try_lock(fd, fcntl.LOCK_EX) and _still_exists(fd):
                path.unlink(missing_ok=True)
    return process_ids


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock in `path`."""
    with _open_existing(path) as fd:
        return fd is not None and not _try_lock(fd, fcntl.LOCK_SH)


@contextmanager
def lock_if_finished(path: Path) -> Iterator[bool]:
    """Yield whether the run has ended without removing its lock; if so, hold the lock during the block."""
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
        while not _try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                name, pid = resource[:1].upper() + resource[1:], _read_pid(fd) or "unknown"
                raise LockedError(f"{name} is in use by another process (pid {pid})", hint="Wait until it has finished")
            time.sleep(_POLL_INTERVAL_S)
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
        is_held, silent_until = False, time.monotonic() + _SILENT_WAIT_S
        while not (is_held := _try_directory_lock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)) and purpose:
            if silent_until and time.monotonic() >= silent_until:
                silent_until = 0.0
                console.info(f"Waiting for another process that uses {directory} for {purpose} …")
            time.sleep(_POLL_INTERVAL_S)
        yield is_held
    finally:
        os.close(fd)


def _try_directory_lock(fd: int, operation: int) -> bool:
    try:
        return _try_lock(fd, operation)
    except OSError:  # NFS locks only files that are open for writing
        return True


def runs_alone(task: str) -> bool:
    """Return whether no other task of the checkout may run at the same time as `task`."""
    return task in _TASKS_THAT_RUN_ALONE


@contextmanager
def hold_task(state: Path, task: str, run: str, *, is_between: bool = False) -> Iterator[None]:
    """Keep tasks that exclude `task` out of the checkout of a state directory during the block.

    Waits until those of other processes have ended, and says after half a second for which ones. `clean` and
    `engine.down` run alone, builds one after the other, everything else at the same time. Between two tasks of a
    command line, only those that run alone are kept out.
    """
    with ExitStack() as held:
        is_shared = not runs_alone(task)
        held.enter_context(_wait_for_lock(state, "tasks.lock", is_shared=is_shared, blockers=None))
        if task in _TASKS_THAT_BUILD and not is_between:
            held.enter_context(_wait_for_lock(state, "builds.lock", is_shared=False, blockers=_TASKS_THAT_BUILD))
        directory = _task_directory(state)
        name = f"{run}~{task}~{threading.get_ident()}{'-between' if is_between else ''}"
        held.callback(finish_run, directory, name, start_run(directory, name))
        yield


@dataclass(frozen=True)
class RunningTask:
    """A task that holds a checkout."""

    task: str
    run: str
    pid: int

    def __str__(self) -> str:
        return f"`{self.task}` (run {self.run}, pid {self.pid})"


def list_running_tasks(state: Path) -> list[RunningTask]:
    """Return the tasks that hold a checkout, those of this process included."""
    pids = active_runs(_task_directory(state))
    return [RunningTask(task, run, pid) for name, pid in pids.items() for run, task, _ in [name.split("~")]]


def _task_directory(state: Path) -> Path:
    return state / "tasks"


@contextmanager
def _wait_for_lock(state: Path, name: str, *, is_shared: bool, blockers: Collection[str] | None) -> Iterator[None]:
    """Hold a lock file; while waiting, name the running tasks that are among the `blockers`, by default all."""
    state.mkdir(parents=True, exist_ok=True)
    fd = os.open(state / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    announced, silent_until = "", time.monotonic() + _SILENT_WAIT_S
    try:
        while not _try_lock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX):
            if time.monotonic() >= silent_until:
                holders = [item for item in list_running_tasks(state) if blockers is None or item.task in blockers]
                _refuse_waiting_for_parent(holders)
                names = " and ".join(map(str, holders)) or "another task of this project"
                if names != announced:
                    announced = names
                    console.info(f"Waiting for {names} …")
            time.sleep(_POLL_INTERVAL_S)
        yield
    finally:
        os.close(fd)


def _refuse_waiting_for_parent(holders: Sequence[RunningTask]) -> None:
    """Raise LockedError if a task waits for this process, which would then wait for it in turn."""
    ancestors = set(list_ancestors(os.getpid()))
    for holder in holders:
        if holder.pid in ancestors:
            raise LockedError(
                f"This command was started by {holder}, and cannot run before it has ended",
                hint="Run it afterwards, as another task or command of its own",
            )
