"""Run folders and the locks by which runs know of each other."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import RunLocks, active_runs, finish_run, lock_if_finished, new_run_id, start_run, started_within
from lyra_tasks.paths import project_paths, xdg_directory

HOLDER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lyra_tasks.locks import begin_run
begin_run(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("home", ["", "below/here", None])
def test_without_a_folder_for_the_state_the_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user whom the system does not know
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(PreconditionError, match="no state directory") as caught:
        xdg_directory("XDG_STATE_HOME", ".local/state")
    assert caught.value.exit_code == 3
    assert caught.value.hint == "set HOME or XDG_STATE_HOME"


def test_runs_within_one_second_are_in_the_order_in_which_they_began() -> None:
    began = []
    for _ in range(60):
        began.append(new_run_id())
        time.sleep(0.001)
    assert began == sorted(began)
    assert len(set(began)) == 60


def test_a_run_is_live_until_it_ends_and_its_process_is_named(tmp_path: Path) -> None:
    handle = start_run(tmp_path, "r1")
    assert active_runs(tmp_path) == {"r1": os.getpid()}
    finish_run(tmp_path, "r1", handle)
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_is_no_live_run_and_its_lock_is_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), "r1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert active_runs(tmp_path) == {"r1": process.pid}
        process.send_signal(signal.SIGKILL)
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_who_looks_at_the_same_moment_is_not_taken_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "r1").touch()
    with (tmp_path / "r1").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert active_runs(tmp_path) == {}
    assert active_runs(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_begins_while_another_process_sweeps_its_old_lock_keeps_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r1").touch()
    held: list[int] = []

    def begun_again(handle: int, kind: int, real: Callable[[int, int], None] = fcntl.flock) -> None:
        if not held:  # another has swept the lock since it was opened here, and the run goes on in a third process
            (tmp_path / "r1").unlink()
            held.append(os.open(tmp_path / "r1", os.O_RDWR | os.O_CREAT))
            real(held[0], fcntl.LOCK_EX)
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", begun_again)
    assert active_runs(tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]
    assert active_runs(tmp_path) == {"r1": 0}
    os.close(held[0])


def test_what_a_run_left_is_taken_by_one_alone_and_not_twice(tmp_path: Path) -> None:
    lock = tmp_path / "r1.lock"
    with lock_if_finished(lock) as ended:
        assert not ended, "there is none"
    lock.touch()
    with lock_if_finished(lock) as ended, lock_if_finished(lock) as again:
        assert (ended, again) == (True, False)
    handle = start_run(tmp_path, lock.name)
    with lock_if_finished(lock) as ended:
        assert not ended, "it is going on"
    os.close(handle)
    with lock_if_finished(lock) as ended:
        assert ended


def test_of_the_run_folders_none_goes_that_is_live_or_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    paths = project_paths(tmp_path, "tiny")
    for run in ("r1", "r2", "r3"):
        paths.create_run_directory(run, keep=5)
    handle = start_run(paths.run_locks, "r1")
    paths.create_run_directory("r0", keep=1)
    assert {path.name for path in paths.runs.iterdir()} == {"r0", "r1", "r3"}, "the clock may have been set back"
    finish_run(paths.run_locks, "r1", handle)
    paths.create_run_directory("r4", keep=1)
    assert {path.name for path in paths.runs.iterdir()} == {"r4"}


def test_a_run_that_is_marked_again_by_the_same_process_does_not_wait_for_itself(tmp_path: Path) -> None:
    live = RunLocks(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live.acquire, ["r1"] * 8, timeout=10))
    assert "r1" in live
    assert active_runs(tmp_path) == {"r1": os.getpid()}
    live.release()
    assert "r1" not in live
    assert active_runs(tmp_path) == {}


def test_a_run_says_by_its_id_how_old_it_is() -> None:
    assert started_within(new_run_id(), 1.0)
    assert not started_within("20260101t000000-0000000", 3600)
    an_hour_ago = time.strftime("%Y%m%dt%H%M%S", time.gmtime(time.time() - 3600)) + "-0000000"
    assert started_within(an_hour_ago, 3660)
    assert not started_within(an_hour_ago, 3540)
