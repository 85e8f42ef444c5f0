"""The pytest plugin for checks of kind `pytest`: fixtures for the services, and results as they come.

It is loaded by every pytest in the environment, so it imports next to nothing, and nothing else of this package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lyra_tasks.pytest_plugin.services import Services

ENVIRONMENT_VARIABLE = "LYRA_SERVICES"
"""The path of the file that describes the services of the test environment."""
EVENTS_VARIABLE = "LYRA_PYTEST_EVENTS"
"""The path of the file that takes the results, a JSON document per line."""
_MAX_LINES = 100


@pytest.fixture(scope="session")
def lyra() -> Iterator[Services]:
    """Give access to the services of the test environment: `lyra["web"].http.get("/")`."""
    from lyra_tasks.pytest_plugin.services import open_services

    path = os.environ.get(ENVIRONMENT_VARIABLE)
    if path is None:
        pytest.fail(
            'The fixture `lyra` needs a test environment: run `lyra test`, with a check `pytest = "PATH"`',
            pytrace=False,
        )
    with open_services(Path(path)) as services:
        yield services


def pytest_configure(config: pytest.Config) -> None:
    """Report results to the test run that has started pytest, but not those of the workers of pytest-xdist twice."""
    path = os.environ.get(EVENTS_VARIABLE)
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reporter(Path(path)), "lyra-reporter")


class _Reporter:
    """Writes the result of each test as soon as its last phase has ended."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(event="started", test=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.setdefault(report.nodeid, []).append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        reports = self._reports.pop(nodeid, [])
        if not reports:
            return
        failed = [report for report in reports if report.failed]
        skipped = next((report for report in reports if report.skipped), None)
        seconds = sum(report.duration for report in reports)
        if failed:
            outcome = "failed" if any(report.when == "call" for report in failed) else "error"
            details = _describe_failure(failed[0])
            self._write(event="finished", test=nodeid, outcome=outcome, seconds=seconds, **details)
        elif skipped is not None:
            self._write(event="skipped", test=nodeid, message=_skip_reason(skipped))
        elif any(report.when == "call" and report.passed for report in reports):
            self._write(event="finished", test=nodeid, outcome="passed", seconds=seconds, message="", lines=[])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            details = _describe_failure(report)
            self._write(event="finished", test=report.nodeid, outcome="error", seconds=0.0, **details)

    def pytest_unconfigure(self) -> None:
        self._file.close()

    def _write(self, **event: Any) -> None:
        self._file.write(json.dumps(event) + "\n")


def _describe_failure(report: pytest.TestReport | pytest.CollectReport) -> dict[str, Any]:
    """Return what the exception says, and the end of the traceback and of what the test printed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(report.longrepr).splitlines()
    last_line = next((line for line in reversed(lines) if line.strip()), "")
    message = crash.message if crash is not None else last_line.removeprefix("E ").strip()
    for title, content in report.sections:
        lines += [f"--- {title} ---", *content.splitlines()[-_MAX_LINES:]]
    return {"message": message, "lines": lines[-2 * _MAX_LINES :]}


def _skip_reason(report: pytest.TestReport) -> str:
    reason = getattr(report, "wasxfail", None)
    if reason is not None:
        return f"expected to fail: {reason}".removesuffix(": ")
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
