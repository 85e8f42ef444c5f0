"""Interrupts at any moment, and closed standard streams: one line, the documented exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.thorough import THOROUGH

pytestmark = pytest.mark.slow

# as `./inv` does it
PROGRAM = ["env", "--block-signal=INT", "--block-signal=TERM", "--block-signal=HUP", sys.executable, "-m", "lyra_tasks"]
INTERRUPTED = (130, "", "error: Interrupted\n")
STEPS = 60
LONGEST_DELAY_S = 1.2

TASKS = """
import time
from invoke import task
from lyra_tasks import namespace

@task
def nap(c):
    time.sleep(10)

namespace.add_task(nap)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an own task that takes long."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "napping"\n')
    return tmp_path


def environment(project: Path) -> dict[str, str]:
    """Return the environment of a program in the project."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(project / "state")}


def interrupt(project: Path, delay_s: float, number: signal.Signals, *arguments: str) -> tuple[int, str, str]:
    """Start the program, send it a signal after a while, and return exit code and output."""
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", *PROGRAM, *arguments],  # the tests may run below `nohup`
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay_s)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.6])
def test_interrupt_ends_in_one_line(project: Path, number: signal.Signals, delay_s: float) -> None:
    assert interrupt(project, delay_s, number, "nap") == INTERRUPTED


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_at_any_moment_ends_in_one_line(project: Path, number: signal.Signals) -> None:
    outcomes = [interrupt(project, LONGEST_DELAY_S * step / STEPS, number, "nap") for step in range(1, STEPS + 1)]
    assert [outcome for outcome in outcomes if outcome != INTERRUPTED] == []


def test_ignored_hangup_stays_ignored(project: Path) -> None:
    process = subprocess.Popen(
        ["nohup", *PROGRAM, "--list"],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    for _ in range(10):
        time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("config.show >&-", 0),
        ("config.show <&- >&- 2>&-", 0),
        ("--list >&-", 0),
        ("no-such-task >&- 2>&-", 2),
        ("config.show --json 2>&-", 0),
        ("config.show --json >&-", 3),
        ("config.show --json >/dev/full", 3),
        pytest.param("config.show 2>&-", 0, marks=THOROUGH),
        pytest.param("config.show <&-", 0, marks=THOROUGH),
        pytest.param("--help >&-", 0, marks=THOROUGH),
        pytest.param("history >&-", 0, marks=THOROUGH),
        pytest.param("no-such-task 2>&-", 2, marks=THOROUGH),
        pytest.param("config.show --json >&- 2>&-", 3, marks=THOROUGH),
        pytest.param("history --json >&-", 3, marks=THOROUGH),
    ],
)
def test_closed_stream_has_a_documented_exit_code(project: Path, line: str, code: int) -> None:
    script = f"exec {sys.executable} -W error -m lyra_tasks {line}"
    result = subprocess.run(
        ["sh", "-c", script], cwd=project, env=environment(project), capture_output=True, text=True, check=False
    )
    assert (result.returncode, "Traceback" in result.stderr) == (code, False), result.stderr
    if code == 3 and "2>&-" not in line and "full" not in line:
        assert result.stderr.startswith("error: Cannot write standard output: it is closed\nhint: ")


def test_closed_streams_are_no_files_of_the_program(project: Path) -> None:
    program = "import os; from lyra_tasks.console.streams import replace_closed_streams; replace_closed_streams()"
    check = "assert [os.readlink(f'/proc/self/fd/{number}') for number in range(3)] == ['/dev/null'] * 3; os._exit(7)"
    result = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "{program}; {check}" <&- >&- 2>&-'],
        env=environment(project),
        check=False,
    )
    assert result.returncode == 7
