"""Programs below the launcher, and the directories that it shares with the process that starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lyra_tasks.engine.buildx import docker_cli
from lyra_tasks.engine.buildx.docker_cli import _lifetime, _write_environment
from lyra_tasks.locks import private_directory
from tests.faults import becomes, processes_with

LAUNCHER = str(docker_cli.__dict__["_LAUNCHER"])
HOLDER = """
import os, sys, time
from pathlib import Path

from lyra_tasks.engine.buildx.docker_cli import _lifetime
with _lifetime(Path(sys.argv[1]) / "lifetime", (int(sys.argv[2]),)):
    print("held", flush=True)
    time.sleep(60)
"""
OWNER = """
import sys, time

from lyra_tasks.locks import private_directory
with private_directory("test") as directory:
    print(directory, flush=True)
    time.sleep(60)
"""


def launch(control: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher; it must not take long."""
    return subprocess.run(
        [sys.executable, "-I", "-S", LAUNCHER, str(control), *command],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Path:
    _write_environment(tmp_path / "environment", {"GREETING": "hello"})
    (tmp_path / "parent").write_text(str(os.getpid()))
    return tmp_path


def test_program_gets_its_environment_and_no_other(control: Path) -> None:
    with _lifetime(control / "lifetime", ()):
        result = launch(control, "/usr/bin/env")
    assert (result.returncode, result.stdout) == (0, "GREETING=hello\n")
    assert int((control / "pid").read_text()) > 0


def test_nothing_is_started_for_a_process_that_was_killed(control: Path) -> None:
    os.mkfifo(control / "lifetime")  # nobody reads it any more
    assert launch(control, "/usr/bin/env").returncode == 1
    (control / "lifetime").unlink()
    assert launch(control, "/usr/bin/env").returncode == 1
    (control / "parent").write_text("1")
    with _lifetime(control / "lifetime", ()):
        assert launch(control, "/usr/bin/env").stdout == ""
    assert not (control / "pid").exists()


def test_lock_ends_with_a_killed_process_that_has_started_nothing(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[lock]) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    os.close(lock)

    def is_held() -> bool:
        return any(os.path.realpath(tmp_path / "lock") in os.path.realpath(path) for path in list_descriptors())

    assert becomes(lambda: not is_held(), 5)


def list_descriptors() -> list[str]:
    """Return the descriptors of all `cat` processes."""
    found = []
    for pid in processes_with("cat"):
        try:
            found += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
    return found


def test_directory_of_a_killed_process_is_removed_by_the_next_one() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout is not None and living.stdout is not None
        left, kept = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        assert left.is_dir() and left.parent == Path(tempfile.gettempdir())
        (left / "environment").write_text("SECRET=x")
        killed.kill()
        killed.wait()
        with private_directory("test") as own:
            assert own.stat().st_mode & 0o777 == 0o700
            assert not left.exists() and kept.is_dir()
        assert not own.exists()
        living.send_signal(signal.SIGINT)
        living.wait()
    deadline = time.monotonic() + 5
    while kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not kept.exists()
