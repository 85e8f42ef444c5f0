"""Suites: programs that report many tests, each of which is a check of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lyra_tasks import console
from lyra_tasks.checks.commands import COMMAND_LOG, CompletedCommand, run_host_command
from lyra_tasks.config.models import Test
from lyra_tasks.records.evidence import CheckResult, create_check_detail
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

_MAX_TESTS = 10_000
_MAX_LINES = 200
_MAX_NAME_CHARS = 300
_MAX_MESSAGE_CHARS = 2000
_MAX_SKIPPED_SHOWN = 5

Outcome = Literal["passed", "failed", "error"]


@dataclass
class SuiteRun:
    """A suite while it runs; `report` is called with the result of each test as soon as it is known."""

    test: Test
    lab: Lab
    report: Callable[[CheckResult], None]
    counts: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    running: str = ""

    def add(self, name: str, outcome: Outcome, seconds: float, message: str, lines: Sequence[str]) -> None:
        """Report the result of a test."""
        self.counts[outcome] += 1
        if self.counts.total() > _MAX_TESTS:
            return
        unique, number = self._clean(name)[:_MAX_NAME_CHARS] or "?", 1
        while unique in self.names:
            number += 1
            unique = f"{self._clean(name)[:_MAX_NAME_CHARS]} ({number})"
        self.names.add(unique)
        details = [create_check_detail("traceback", map(self._clean, lines[-_MAX_LINES:]))] if lines else []
        self.report(
            CheckResult(
                name=f"{self.test.name}: {unique}",
                kind=self.test.kind,
                service="",
                outcome=outcome,
                message=self._clean(message)[:_MAX_MESSAGE_CHARS],
                seconds=round(max(seconds, 0.0), 3),
                details=details,
            )
        )

    def skip(self, name: str, reason: str) -> None:
        """Note a test that was skipped: it is no check, since nothing was checked."""
        self.counts["skipped"] += 1
        if len(self.skipped) < _MAX_SKIPPED_SHOWN:
            self.skipped.append(self._clean(f"{name}: {reason}")[:_MAX_NAME_CHARS])

    def summarize(self, result: CheckResult) -> CheckResult:
        """Return the result of the suite as a whole, with how many tests have passed and which were skipped."""
        counts = self.counts
        total = counts["passed"] + counts["failed"] + counts["error"]
        problem, outcome = result.message, result.outcome
        if not problem and not total:
            problem = "no test was run"
        elif not problem and total > _MAX_TESTS:
            problem = f"{total} tests, more than {_MAX_TESTS}"
        if outcome == "passed" and (problem or counts["passed"] < total):
            outcome = "failed"
        parts = [f"{counts[key]} {key}" for key in ("passed", "failed", "error", "skipped") if counts[key]]
        lines = [problem, ", ".join(parts), *(f"skipped: {reason}" for reason in self.skipped)]
        return result.model_copy(update={"outcome": outcome, "message": "\n".join(filter(None, lines))})

    def _clean(self, text: str) -> str:
        return console.sanitize(redact(text, self.lab.plan.secret_values))


def run_suite_command(
    run: SuiteRun, command: Sequence[str], root: Path, variables: Mapping[str, str], directory: Path
) -> CompletedCommand:
    """Run the program of a suite in the project's directory; its output is written to `directory`."""
    secret_values = run.lab.plan.secret_values
    completed = run_host_command(
        command,
        root,
        variables,
        timeout=run.test.effective_timeout,
        cancellation=run.lab.cancellation,
        secret_values=secret_values,
    )
    (directory / COMMAND_LOG).write_text(completed.output, encoding="utf-8")
    return completed
