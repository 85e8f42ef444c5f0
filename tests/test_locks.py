"""Run directories, and the locks by which processes know of active runs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks import locks
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import (
    active_runs,
    directory_lock,
    finish_run,
    list_stale_directories,
    lock_if_finished,
    new_run_id,
    private_directory,
    remove_stale_directories,
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


def test_run_id_tells_age() -> None:
    assert started_within(new_run_id(), 1.0)
    assert not started_within("20260101t000000-0000000", 3600)
    an_hour_ago = time.strftime("%Y%m%dt%H%M%S", time.gmtime(time.time() - 3600)) + "-0000000"
    assert started_within(an_hour_ago, 3660)
    assert not started_within(an_hour_ago, 3540)


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


def test_directory_of_killed_process_is_listed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(locks, "_LARGE_TEMPORARY_FILES", tmp_path / "large")
    dead = subprocess.Popen(["true"])
    dead.wait()
    stale = tmp_path / f"lyra-private-docker-{dead.pid}-abcdefgh"
    (stale / "tmp" / "dockerfile1").mkdir(parents=True)
    (tmp_path / "lyra-notes").mkdir()
    own = tmp_path / f"lyra-private-docker-{os.getpid()}-abcdefgh"
    own.mkdir()
    with directory_lock(stale, is_shared=True):  # as by a process of a container
        remove_stale_directories()
        assert list_stale_directories() == [] and stale.is_dir()
    assert list_stale_directories() == [stale]
    with private_directory("docker") as directory:
        assert {path.name for path in tmp_path.iterdir()} == {"lyra-notes", own.name, directory.name}
    assert list_stale_directories() == []


def test_large_directory_of_killed_process_is_listed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    large = tmp_path / "large"
    large.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "small"))
    monkeypatch.setattr(locks, "_LARGE_TEMPORARY_FILES", large)
    dead = subprocess.Popen(["true"])
    dead.wait()
    stale = large / f"lyra-private-rootfs-{dead.pid}-abcdefgh"
    (stale / "mmdebstrap.x").mkdir(parents=True)
    assert list_stale_directories() == [stale]
    with private_directory("rootfs", is_large=True) as directory:
        assert list(large.iterdir()) == [directory]
    assert list(large.iterdir()) == []
