"""Builds of several processes on one engine share its slots."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lyra_tasks.lab.build_slots import hold_build_slots

pytestmark = pytest.mark.slow

HOLDER = """
import subprocess, sys
from pathlib import Path

from lyra_tasks.lab.build_slots import hold_build_slots
with hold_build_slots(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "shop (pid 1)") as handles:
    if sys.argv[4:]:
        subprocess.Popen(sys.argv[4:], pass_fds=handles)
    print(len(handles), flush=True)
    sys.stdin.read()
"""


def start(directory: Path, total: int, wanted: int, *child: str) -> tuple[subprocess.Popen[str], int]:
    """Let another process hold slots and return it, and how many it holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), str(total), str(wanted), *child],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_build_takes_what_others_leave(tmp_path: Path) -> None:
    with hold_build_slots(tmp_path / "slots", 4, 9, "a") as all_slots:
        assert len(all_slots) == 4
    other, count = start(tmp_path / "slots", 4, 3)
    assert count == 3
    with hold_build_slots(tmp_path / "slots", 4, 2, "a") as rest:
        assert len(rest) == 1
    other.communicate("")
    with hold_build_slots(tmp_path / "slots", 4, 2, "a") as again:
        assert len(again) == 2


def test_build_waits_and_says_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, _ = start(tmp_path / "slots", 2, 2)
    timer = threading.Timer(1.0, lambda: other.communicate(""))
    timer.start()
    with hold_build_slots(tmp_path / "slots", 2, 1, "a") as handles:
        assert len(handles) == 1
        assert capsys.readouterr().err == "Waiting for a build of shop (pid 1) …\n"
    timer.join()


def test_killed_build_frees_its_slots_when_its_builder_has_ended(tmp_path: Path) -> None:
    other, count = start(tmp_path / "slots", 1, 1, "sleep", "1")
    assert count == 1
    other.kill()
    other.wait()  # but not for its output, which the child still holds
    started = time.monotonic()
    with hold_build_slots(tmp_path / "slots", 1, 1, "a"):
        assert time.monotonic() - started > 0.3
    assert other.stdin is not None and other.stdout is not None
    other.stdin.close()
    other.stdout.close()
    assert os.listdir(tmp_path / "slots") == ["0"]
