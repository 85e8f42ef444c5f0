"""Tasks of one checkout at the same time: which exclude each other, and which runs are active."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import LockedError
from lyra_tasks.locks import POLL_INTERVAL_S, SILENT_WAIT_S, active_runs, finish_run, start_run, try_lock
from lyra_tasks.processes import list_ancestors

_TASKS_THAT_RUN_ALONE = frozenset({"clean", "engine.down"})
_TASKS_THAT_BUILD = frozenset({"build", "lock.update"})


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
    announced, silent_until = "", time.monotonic() + SILENT_WAIT_S
    try:
        while not try_lock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX):
            if time.monotonic() >= silent_until:
                holders = [item for item in list_running_tasks(state) if blockers is None or item.task in blockers]
                _refuse_waiting_for_parent(holders)
                names = " and ".join(map(str, holders)) or announced or "another task of this project"
                if names != announced:
                    announced = names
                    console.info(f"Waiting for {names} …")
            time.sleep(POLL_INTERVAL_S)
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
