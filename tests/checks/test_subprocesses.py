"""Programs that checks run here: they end in time, whatever they start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lyra_tasks.checks.commands import run_host_command
from lyra_tasks.lab.cancellation import Cancellation
from tests.faults import becomes, processes_with


def test_a_program_that_leaves_a_daemon_behind_is_not_waited_for_beyond_its_end(tmp_path: Path) -> None:
    began = time.monotonic()
    # it has a session of its own, and holds the program's output
    daemon = "setsid sleep 25.25 & echo started; exit 3"
    ended = run_host_command(["sh", "-c", daemon], tmp_path, {}, timeout=20, cancellation=Cancellation())
    assert (ended.exit_code, ended.output) == (3, "started\n")
    assert time.monotonic() - began < 10
    for pid in processes_with("25.25"):
        os.kill(pid, signal.SIGKILL)


def test_a_program_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    ended = run_host_command(
        ["sh", "-c", "sleep 26.26 & echo ${A}; sleep 26.26"],
        tmp_path,
        {"A": "b"},
        timeout=0.3,
        cancellation=Cancellation(),
    )
    assert (ended.exit_code, ended.output) == (None, "b\n")
    assert becomes(lambda: processes_with("sleep\x0026.26") == [])
