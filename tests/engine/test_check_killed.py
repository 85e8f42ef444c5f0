"""The private engines of a test session that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lyra_tasks.engine.sandbox import find_sandbox
from tests.reaper import list_engines_below

_REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120.0
_TEST = """
import time

def test_that_hangs(box):
    time.sleep(600)
"""


def test_engines_of_a_killed_session_end(tmp_path: Path) -> None:
    test, base = _REPOSITORY / "tests" / "engine" / f"test_hanging_{os.getpid()}.py", tmp_path / "base"
    test.write_text(_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={base}", str(test)]
    try:
        session = subprocess.Popen(command, cwd=_REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: any(find_sandbox(state) is not None for state in list_engines_below(base)))
        session.send_signal(signal.SIGKILL)
        session.wait()
        wait_for(lambda: not list_engines_below(base))
    finally:
        test.unlink()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
