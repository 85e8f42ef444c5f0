"""Commands on this machine that check services: their environment, and that they end in time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lyra_tasks.checks.commands import build_address_variables, run_host_command
from lyra_tasks.config.models import Service
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from tests.faults import becomes, processes_with


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


def test_command_is_not_waited_for_beyond_its_exit(tmp_path: Path) -> None:
    started = time.monotonic()
    # the daemon has its own session and holds the output open
    daemon = "setsid sleep 25.25 & echo started; exit 3"
    completed = run_host_command(["sh", "-c", daemon], tmp_path, {}, timeout=20, cancellation=Cancellation())
    assert (completed.exit_code, completed.output) == (3, "started\n")
    assert time.monotonic() - started < 10
    for pid in processes_with("25.25"):
        os.kill(pid, signal.SIGKILL)


def test_command_timeout_kills_its_session(tmp_path: Path) -> None:
    completed = run_host_command(
        ["sh", "-c", "sleep 26.26 & echo ${A}; sleep 26.26"],
        tmp_path,
        {"A": "b"},
        timeout=0.3,
        cancellation=Cancellation(),
    )
    assert (completed.exit_code, completed.output) == (None, "b\n")
    assert becomes(lambda: processes_with("sleep\x0026.26") == [])
