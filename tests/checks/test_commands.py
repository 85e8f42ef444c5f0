"""Commands on this machine that check services: their environment, and that they end in time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.checks.commands import CompletedCommand, build_address_variables, run_host_command
from lyra_tasks.config.models import Service
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from tests.faults import becomes, processes_with

pytestmark = pytest.mark.slow


def target(host: str) -> CheckTarget:
    """Return a service that is published at `host`."""
    config = Service.model_validate({"image": "web", "ports": {"http": 8080, "dns": "53/udp"}})
    engine: Any = SimpleNamespace(host_address=host)
    unused: Any = None
    return CheckTarget("web", config, {}, (), engine, "id", {8080: 49153, "53/udp": 49153}, unused, unused)


def test_address_variables_bracket_ipv6() -> None:
    assert build_address_variables([target("2001:db8::7")]) == {
        "LYRA_WEB_HTTP_ADDR": "[2001:db8::7]:49153",
        "LYRA_WEB_HTTP_URL": "http://[2001:db8::7]:49153",
        "LYRA_WEB_DNS_ADDR": "[2001:db8::7]:49153",
    }
    assert build_address_variables([target("10.0.0.7")])["LYRA_WEB_HTTP_URL"] == "http://10.0.0.7:49153"


def run(script: str, directory: Path, *, timeout: float = 20, **environment: str) -> CompletedCommand:
    """Run a shell script as a check does."""
    return run_host_command(["sh", "-c", script], directory, environment, timeout=timeout, cancellation=Cancellation())


@pytest.mark.parametrize(
    "script",
    [
        "setsid sleep 25.25 & echo started; exit 3",
        "(setsid sh -c 'setsid sleep 25.25 & setsid sleep 25.25 & sleep 25.25' &) ; sleep 0.2; echo started; exit 3",
    ],
)
def test_daemon_is_ended_with_its_command(script: str, tmp_path: Path) -> None:
    started = time.monotonic()
    completed = run(script, tmp_path)
    assert (completed.exit_code, completed.output) == (3, "started\n")
    assert time.monotonic() - started < 5
    assert processes_with("25.25") == []


def test_daemon_is_ended_when_lyra_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lyra_tasks.checks.commands import run_host_command\n"
        "from lyra_tasks.lab.cancellation import Cancellation\n"
        "run_host_command(['sh', '-c', 'setsid sleep 27.27 & sleep 27.27'], Path('/'), {}, timeout=60,"
        " cancellation=Cancellation())"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    assert becomes(lambda: len(processes_with("sleep\x0027.27")) == 2)
    process.kill()
    process.wait()
    assert becomes(lambda: processes_with("sleep\x0027.27") == [], 5)


def test_command_that_is_killed_has_its_signal_as_exit_code(tmp_path: Path) -> None:
    assert run("kill -SEGV $$", tmp_path).exit_code == -signal.SIGSEGV
    assert run("kill -KILL $$", tmp_path).exit_code == -signal.SIGKILL
    assert run("exit 7", tmp_path).exit_code == 7


def test_missing_program_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_host_command(["./nowhere"], tmp_path, {}, timeout=5, cancellation=Cancellation())


def test_endless_output_is_bounded_and_redacted(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        completed = run_host_command(
            ["sh", "-c", f"echo first; exec yes 'a-secret-word{' ' * 180}'"],
            tmp_path,
            {},
            timeout=0.5,
            cancellation=Cancellation(),
            secret_values=["a-secret-word"],
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert completed.exit_code is None
    assert completed.output.startswith(f"first\n***{' ' * 180}\n***")
    assert re.search(r"\n\[lyra: \d{7,} bytes left out\]\n", completed.output)
    assert set(re.sub(r"^first\n|\n?\[lyra: .*\]\n", "", completed.output)) <= set("* \n")
    assert peak < 40 << 20


def test_command_timeout_kills_its_processes(tmp_path: Path) -> None:
    completed = run("sleep 26.26 & setsid sleep 26.26 & echo ${A}; sleep 26.26", tmp_path, timeout=0.5, A="b")
    assert (completed.exit_code, completed.output) == (None, "b\n")
    assert processes_with("sleep\x0026.26") == []
