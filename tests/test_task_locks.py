"""Tasks of one checkout at the same time, in several processes and in one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks import task_locks
from lyra_tasks.locks import active_runs
from lyra_tasks.task_locks import RunLocks, RunningTask, hold_task, list_running_tasks

pytestmark = pytest.mark.slow

TASK = """
import subprocess, sys
from pathlib import Path

from lyra_tasks.task_locks import hold_task
print("begins", flush=True)
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
        assert self._read_line(30.0) == b"begins\n"

    def is_running(self, seconds: float = 10.0) -> bool:
        """Return whether the task gets its lock within `seconds`."""
        return self._read_line(seconds) == b"held\n"

    def _read_line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None
        handle, line = self.process.stdout.fileno(), b""
        while not line.endswith(b"\n") and select.select([handle], [], [], seconds)[0]:
            if not (byte := os.read(handle, 1)):
                break
            line += byte
        return line

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
        ("lock.update", "build", True),
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


def test_ending_task_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()

    def clean() -> None:
        with hold_task(tmp_path, "clean", "r1"):
            ended.wait(10)

    def list_once(_: Path) -> list[RunningTask]:
        monkeypatch.setattr(task_locks, "list_running_tasks", list_none)
        return [RunningTask("clean", "r1", 99)]

    def list_none(_: Path) -> list[RunningTask]:
        ended.set()
        return []

    monkeypatch.setattr(task_locks, "list_running_tasks", list_once)
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(clean)
        while not list((tmp_path / "tasks").glob("*")):
            time.sleep(0.01)
        with hold_task(tmp_path, "build", "r2"):
            holding.result(timeout=10)
    assert capsys.readouterr().err == "Waiting for `clean` (run r1, pid 99) …\n", "its record goes before its lock"


def test_run_lock_can_be_acquired_repeatedly(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(locks.acquire, ["r1"] * 8, timeout=10))
    assert "r1" in locks
    assert active_runs(tmp_path) == {"r1": os.getpid()}
    locks.release()
    assert "r1" not in locks
    assert active_runs(tmp_path) == {}
