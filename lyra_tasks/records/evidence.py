"""Test evidence, keyed by the tested set, and the metrics of a test run.

The set is the config digests of the project's images, the image ids of the test doubles, and a hash of the effective
services, tests and rules. Changing any of them makes another set, without evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.digests import json_sha256
from lyra_tasks.records.record import Record

LOGS_DIRECTORY, CHECKS_DIRECTORY = "logs", "checks"
EVIDENCE_FILES = ("tests.json", "tests.xml", "metrics.json")
EVIDENCE_DIRECTORIES = (LOGS_DIRECTORY, CHECKS_DIRECTORY)
"""Logs of services and files fetched by checks; a run may lack either."""
MERGED_LOG, BUILD_LOG = "_all.log", "_build.log"
"""Names that no service can have."""
_MAX_LINE_CHARS = 1000


ServiceEventKind = Literal["started", "ready", "check", "ended"]


class SetKey(Record):
    """The key of a tested set."""

    images: dict[str, str] = Field(description="image name -> config digest")
    test_doubles: dict[str, str] = Field(description="service -> image id of the double it ran")
    effective_hash: str = Field(description="hash of the effective services, tests, configs and rules")

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the key as canonical JSON."""
        return json_sha256(self.model_dump(mode="json"))


def list_service_logs(directory: Path) -> list[Path]:
    """Return the service logs in a run's log directory; each group of checks has a subdirectory."""
    return [path for path in sorted(directory.rglob("*.log")) if path.name not in {MERGED_LOG, BUILD_LOG}]


class CheckDetail(Record):
    """Lines that explain a result, such as the end of a log; `file`, below the run's directory, has all of it."""

    title: str
    lines: list[str]
    file: str = ""


def create_check_detail(title: str, lines: Iterable[str], file: str = "") -> CheckDetail:
    """Return lines as a detail, of which very long ones lose their end."""
    shortened = (line if len(line) <= _MAX_LINE_CHARS else f"{line[:_MAX_LINE_CHARS]}…" for line in lines)
    return CheckDetail(title=title, lines=list(shortened), file=file)


class CheckResult(Record):
    """The result of a check; `error` means that it could not be run."""

    name: str
    kind: str
    service: str
    outcome: Literal["passed", "failed", "error"]
    asked: str = Field(default="", description="what was checked, as the configuration says it")
    message: str = ""
    seconds: float = 0.0
    group: str = ""
    details: list[CheckDetail] = Field(default_factory=list, description="what happened around a failure")
    directory: str = Field(default="", description="its files, below the run's directory")
    cached_from: str = Field(default="", description="the run that the result comes from, if not this one")

    @property
    def title(self) -> str:
        """Return the name of the check, qualified by its group."""
        return check_title(self.name, self.group)


def check_title(name: str, group: str) -> str:
    """Return the name of a check, qualified by its group if it has one."""
    return f"{group}: {name}" if group else name


class RuleResult(Record):
    """The result of a rule check for one scope.

    A violation is a `deviation` if the configuration gives a reason, a `warning` if the rule only warns, and `failed`
    otherwise. A check is `skipped` if the program that it needs is not installed.
    """

    rule: str
    scope: str
    outcome: Literal["passed", "failed", "deviation", "warning", "skipped"]
    message: str = ""


class ServiceUsage(Record):
    """Peak usage and limits of a container; memory in bytes, CPU in cores."""

    memory_peak: int
    memory_limit: int
    cpu_peak: float
    cpu_limit: float
    pids_peak: int
    pids_limit: int
    oom_killed: bool
    exit_code: int | None
    samples: int


class TestsDocument(Record):
    """The content of `tests.json`: what a test run found, without what only matters in its checkout."""

    __test__ = False

    schema_: Literal["lyra.evidence/2"] = Field(default="lyra.evidence/2", alias="schema")
    set: SetKey
    passed: bool
    run: str
    started_at: str
    seconds: float
    engine: dict[str, str]
    checks: list[CheckResult]
    rules: list[RuleResult]
    usage: dict[str, ServiceUsage] = Field(description="by service, or by GROUP/SERVICE for a group of checks")


class Evidence(TestsDocument):
    """The result of a test run; `part_hashes` are the hashes behind `set.effective_hash`, to name what changed."""

    part_hashes: dict[str, str] = Field(default_factory=dict)
    check_keys: dict[str, str] = Field(
        default_factory=dict, description="title of a check that passed -> hash of all that its result depends on"
    )
    group_keys: dict[str, str] = Field(
        default_factory=dict, description="group whose checks of services passed -> hash of all that they depend on"
    )

    @property
    def cached_runs(self) -> dict[str, str]:
        """Return the runs that results come from, by the titles of the checks."""
        return {check.title: check.cached_from for check in self.checks if check.cached_from}


class Measurement(Record):
    """A usage sample of a container `at` a time in UTC; memory in bytes, CPU in cores since the previous sample."""

    at: str
    memory: int
    memory_limit: int
    cpu: float
    pids: int
    pids_limit: int


class ServiceEvent(Record):
    """An event of a service, or a check of it that ended at `at` and took `seconds`.

    `outcome` is the check's outcome or, for an ended service, `out of memory` or `exit code N`.
    """

    at: str
    kind: ServiceEventKind
    service: str
    name: str = ""
    outcome: str = ""
    seconds: float = 0.0


class Metrics(Record):
    """Measurements of a run by service, and its events in time order."""

    schema_: Literal["lyra.metrics/1"] = Field(default="lyra.metrics/1", alias="schema")
    events: list[ServiceEvent]
    services: dict[str, list[Measurement]]


def create_service_event(
    kind: ServiceEventKind, service: str, *, name: str = "", outcome: str = "", seconds: float = 0.0
) -> ServiceEvent:
    """Return an event that happens now."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ServiceEvent(at=at, kind=kind, service=service, name=name, outcome=outcome, seconds=round(seconds, 3))
