"""Run directories, and the locks by which processes know of active runs."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import (
    RunLocks,
    active_runs,
    directory_lock,
    finish_run,
    hold_task,
    list_running_tasks,
    lock_if_finished,
    new_run_id,
    start_run,
    started_within,
)
from lyra_tasks.paths import project_paths, xdg_directory

HOLDER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lyra_tasks.locks import start_run
start_run(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("home", ["", "below/here", None])
def test_missing_state_directory_names_variables(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user without an entry in the user database
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(PreconditionError, match="No state directory") as caught:
        xdg_directory("XDG_STATE_HOME", ".local/state")
    assert caught.value.exit_code == 3
    assert caught.value.hint == "Set HOME or XDG_STATE_HOME"


def test_run_ids_within_one_second_sort_by_time() -> None:
    run_ids = []
    for _ in range(60):
        run_ids.append(new_run_id())
        time.sleep(0.001)
    assert run_ids == sorted(run_ids)
    assert len(set(run_ids)) == 60


def test_run_is_active_until_it_finishes(tmp_path: Path) -> None:
    fd = start_run(tmp_path, "r1")
    assert active_runs(tmp_path) == {"r1": os.getpid()}
    finish_run(tmp_path, "r1", fd)
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_lock_of_killed_process_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), "r1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert active_runs(tmp_path) == {"r1": process.pid}
        process.send_signal(signal.SIGKILL)
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_concurrent_reader_is_not_taken_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "r1").touch()
    with (tmp_path / "r1").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert active_runs(tmp_path) == {}
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_run_starting_during_removal_keeps_new_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r1").touch()
    fds: list[int] = []

    def restart_run(fd: int, operation: int, real: Callable[[int, int], None] = fcntl.flock) -> None:
        if not fds:  # another process has removed the lock since it was opened here, and a third one is the run now
            (tmp_path / "r1").unlink()
            fds.append(os.open(tmp_path / "r1", os.O_RDWR | os.O_CREAT))
            real(fds[0], fcntl.LOCK_EX)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", restart_run)
    assert active_runs(tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]
    assert active_runs(tmp_path) == {"r1": 0}
    os.close(fds[0])


def test_finished_run_is_locked_by_one_process_only(tmp_path: Path) -> None:
    lock = tmp_path / "r1.lock"
    with lock_if_finished(lock) as is_finished:
        assert not is_finished, "no lock exists"
    lock.touch()
    with lock_if_finished(lock) as is_finished, lock_if_finished(lock) as is_finished_too:
        assert (is_finished, is_finished_too) == (True, False)
    fd = start_run(tmp_path, lock.name)
    with lock_if_finished(lock) as is_finished:
        assert not is_finished, "it is active"
    os.close(fd)
    with lock_if_finished(lock) as is_finished:
        assert is_finished


def test_active_and_own_run_directories_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    paths = project_paths(tmp_path, "tiny")
    for run in ("r1", "r2", "r3"):
        paths.create_run_directory(run, keep=5)
    fd = start_run(paths.run_locks, "r1")
    paths.create_run_directory("r0", keep=1)
    assert {path.name for path in paths.runs.iterdir()} == {"r0", "r1", "r3"}, "the clock may have been set back"
    finish_run(paths.run_locks, "r1", fd)
    paths.create_run_directory("r4", keep=1)
    assert {path.name for path in paths.runs.iterdir()} == {"r4"}


def test_run_lock_can_be_acquired_repeatedly(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(locks.acquire, ["r1"] * 8, timeout=10))
    assert "r1" in locks
    assert active_runs(tmp_path) == {"r1": os.getpid()}
    locks.release()
    assert "r1" not in locks
    assert active_runs(tmp_path) == {}


def test_run_id_tells_age() -> None:
    assert started_within(new_run_id(), 1.0)
    assert not started_within("20260101t000000-0000000", 3600)
    an_hour_ago = time.strftime("%Y%m%dt%H%M%S", time.gmtime(time.time() - 3600)) + "-0000000"
    assert started_within(an_hour_ago, 3660)
    assert not started_within(an_hour_ago, 3540)


TASK = """
import subprocess, sys
from pathlib import Path

from lyra_tasks.locks import hold_task
with hold_task(Path(sys.argv[1]), sys.argv[2], "r1"):
    print("held", flush=True)
    if sys.argv[3:]:
        sys.exit(subprocess.run([sys.executable, *sys.argv[3:]]).returncode)
    sys.stdin.readline()
"""


class OtherTask:
    """A task in another process, which ends when it is told so."""

    def __init__(self, state: Path, task: str) -> None:
        command = [sys.executable, "-c", TASK, str(state), task]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def is_running(self, seconds: float = 10.0) -> bool:
        """Return whether the task begins within `seconds`."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return bool(ready) and self.process.stdout.readline() == "held\n"

    def end(self) -> tuple[int, str]:
        """End the task and return its exit code and what it printed to stderr."""
        _, errors = self.process.communicate("\n", timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], OtherTask]]:
    """Return a function that starts a task in another process."""
    started: list[OtherTask] = []

    def start(task: str) -> OtherTask:
        started.append(OtherTask(tmp_path, task))
        return started[-1]

    yield start
    for other in started:
        other.process.kill()
        other.process.communicate()


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        ("build", "clean", True),
        ("clean", "build", True),
        ("test", "engine.down", True),
        ("engine.down", "create", True),
        ("promote", "clean", True),
        ("clean", "clean", True),
        ("build", "build", True),
        ("bases.update", "build", True),
        ("build", "test", False),
        ("test", "build", False),
        ("test", "test", False),
        ("create", "promote", False),
    ],
)
def test_tasks_that_exclude_each_other_wait(
    start: Callable[[str], OtherTask], tmp_path: Path, first: str, second: str, waits: bool
) -> None:
    holder = start(first)
    assert holder.is_running()
    waiting = start(second)
    assert waiting.is_running(0.9 if waits else 10.0) is not waits
    assert holder.end() == (0, "")
    assert not waits or waiting.is_running()
    announcement = f"Waiting for `{first}` (run r1, pid {holder.process.pid}) …\n"
    assert waiting.end() == (0, announcement if waits else "")
    assert list_running_tasks(tmp_path) == []


def test_clean_names_every_task_that_it_waits_for(start: Callable[[str], OtherTask]) -> None:
    holders = [start("build"), start("test")]
    assert all(holder.is_running() for holder in holders)
    waiting = start("clean")
    assert not waiting.is_running(0.9)
    holders[0].end()
    assert not waiting.is_running(0.3)
    holders[1].end()
    assert waiting.is_running()
    first, second = (
        f"`{task}` (run r1, pid {holder.process.pid})" for task, holder in zip(("build", "test"), holders, strict=True)
    )
    assert waiting.end()[1] == f"Waiting for {first} and {second} …\nWaiting for {second} …\n"


def test_killed_task_ends_the_wait(start: Callable[[str], OtherTask], tmp_path: Path) -> None:
    holder = start("build")
    assert holder.is_running()
    waiting = start("clean")
    holder.process.kill()
    assert waiting.is_running()
    assert [item.task for item in list_running_tasks(tmp_path)] == ["clean"]


def test_interrupt_ends_the_wait(start: Callable[[str], OtherTask]) -> None:
    holder = start("clean")
    assert holder.is_running()
    waiting = start("build")
    assert not waiting.is_running(0.9)
    waiting.process.send_signal(signal.SIGINT)
    _, errors = waiting.process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors
    assert holder.end() == (0, "")


def test_task_does_not_wait_for_its_own_parent(tmp_path: Path) -> None:
    inner = ["-c", TASK, str(tmp_path), "clean"]
    result = subprocess.run(
        [sys.executable, "-c", TASK, str(tmp_path), "test", *inner],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 1
    assert "LockedError: This command was started by `test` (run r1, pid " in result.stderr
    with hold_task(tmp_path, "build", "r2"):
        assert [item.run for item in list_running_tasks(tmp_path)] == ["r2"]


def test_runs_are_active_until_the_last_task_ends(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path / "live")
    with locks.running_task("build", "r1"), locks.running_task("build", "r1", is_between=True):
        locks.acquire("r2")
        with locks.running_task("test", "r1"):
            assert [item.task for item in list_running_tasks(tmp_path)] == ["build", "build", "test"]
        assert set(active_runs(tmp_path / "live")) == {"r1", "r2"}
    assert active_runs(tmp_path / "live") == {}
    with locks.running_task("clean", "r3"):
        assert active_runs(tmp_path / "live") == {}, "its own run is nothing to protect"


def test_released_task_no_longer_holds_the_checkout(tmp_path: Path) -> None:
    def clean() -> None:
        with hold_task(tmp_path, "clean", "r2"):
            pass

    locks = RunLocks(tmp_path / "live")
    with locks.running_task("create", "r1"), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(clean)
        time.sleep(0.2)
        assert not waiting.done()
        locks.release()  # it only watches from now on
        waiting.result(timeout=10)


def test_directory_lock_is_tried_or_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wait() -> bool:
        with directory_lock(tmp_path, purpose="packing") as is_held:
            return is_held

    with ThreadPoolExecutor(1) as pool:
        with directory_lock(tmp_path, is_shared=True) as first, directory_lock(tmp_path, is_shared=True) as second:
            with directory_lock(tmp_path) as third:
                assert (first, second, third) == (True, True, False)
            waiting = pool.submit(wait)
            time.sleep(0.8)
            assert not waiting.done()
        assert waiting.result(timeout=10)
    assert capsys.readouterr().err == f"Waiting for another process that uses {tmp_path} for packing …\n"
    assert list(tmp_path.iterdir()) == []
