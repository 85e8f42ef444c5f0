"""Evidence: what was tested, and with what result, keyed by the set of everything that took part.

The set is the config digests of the project's images, the digests of external images, and a hash of the effective
services, tests and rules. Change any of them and it is another set, without evidence.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import copy_directory
from lyra_tasks.records.record import Record, canonical_json, read_record, write_record

_EVIDENCE_FILE_NAME = "evidence.json"
LOGS_DIRECTORY, CHECKS_DIRECTORY = "logs", "checks"
EVIDENCE_FILES = ("tests.json", "tests.xml", "metrics.json")
EVIDENCE_DIRECTORIES = (LOGS_DIRECTORY, CHECKS_DIRECTORY)
"""What services printed, and what checks brought: each a folder that a run may lack."""
MERGED_LOG, BUILD_LOG = "_all.log", "_build.log"
"""Logs of no service: their names begin as no service's does."""


class SetKey(Record):
    """What a verdict is about."""

    images: dict[str, str] = Field(description="image name -> config digest")
    test_doubles: dict[str, str] = Field(description="service -> image id of the double it ran")
    effective_hash: str = Field(description="hash of the effective services, tests, configs and rules")

    @property
    def digest(self) -> str:
        """The set's name: sha256 over its canonical form."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def list_service_logs(directory: Path) -> list[Path]:
    """The logs of services in a run's folder of logs; those of a group of checks lie in a folder of its name."""
    return [path for path in sorted(directory.rglob("*.log")) if path.name not in {MERGED_LOG, BUILD_LOG}]


class CheckResult(Record):
    """One check: `passed`, `failed` or `error` (it could not be made), with what was seen."""

    name: str
    kind: str
    service: str
    outcome: Literal["passed", "failed", "error"]
    message: str = ""
    seconds: float = 0.0
    group: str = ""

    @property
    def title(self) -> str:
        """Its name, and that of its group where it has one: the same check may be made in several."""
        return check_title(self.name, self.group)


def check_title(name: str, group: str) -> str:
    """What a check is called among those of all groups."""
    return f"{group}: {name}" if group else name


class RuleResult(Record):
    """One rule, looked at for one scope.

    `deviation` is a breach with a written reason, `warning` one that ends nothing, `broken` every other; `skipped` is a
    rule that could not be looked at, because a program for it is not installed.
    """

    rule: str
    scope: str
    outcome: Literal["kept", "broken", "deviation", "warning", "skipped"]
    message: str = ""


class ServiceUsage(Record):
    """What one container used at most, against what it was allowed; memory in bytes, CPU in cores."""

    memory_peak: int
    memory_limit: int
    cpu_peak: float
    cpu_limit: float
    pids_peak: int
    pids_limit: int
    oom_killed: bool
    exit_code: int | None
    samples: int


class Evidence(Record):
    """The verdict over one set; `parts` are hashes of what `set.effective` is made of, to tell later what changed."""

    schema_: Literal["lyra.evidence/2"] = Field(default="lyra.evidence/2", alias="schema")
    set: SetKey
    part_hashes: dict[str, str] = Field(default_factory=dict)
    passed: bool
    run: str
    started_at: str
    seconds: float
    engine: dict[str, str]
    checks: list[CheckResult]
    rules: list[RuleResult]
    usage: dict[str, ServiceUsage] = Field(description="by service; in the lab of a group, by GROUP/SERVICE")


class EvidenceStore:
    """The evidence of one checkout: per set a folder with the verdict and the files it rests on."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "evidence"

    def directory(self, digest: str) -> Path:
        """Where the files of a set lie: evidence.json, tests.json, tests.xml, metrics.json, logs/, checks/."""
        return self._directory / digest

    def read(self, key: SetKey) -> Evidence | None:
        """The last verdict over this very set, or None."""
        return read_record(self.directory(key.digest) / _EVIDENCE_FILE_NAME, Evidence)

    def latest(self) -> Evidence | None:
        """The last verdict over any set; those of an older schema do not count."""
        results = []
        for path in self._directory.glob(f"*/{_EVIDENCE_FILE_NAME}"):
            with suppress(PreconditionError):
                results.append(read_record(path, Evidence))
        return max(
            (evidence for evidence in results if evidence),
            key=lambda evidence: (evidence.started_at, evidence.run),
            default=None,
        )

    def write(self, evidence: Evidence, run_directory: Path) -> None:
        """Keep the verdict and copy what it rests on (`FILES`, `FOLDERS`) out of the run folder `files`."""
        directory = self.directory(evidence.set.digest)
        directory.mkdir(parents=True, exist_ok=True)
        # an earlier verdict must not stand beside files of this one, should this end in the middle
        (directory / _EVIDENCE_FILE_NAME).unlink(missing_ok=True)
        for name in EVIDENCE_FILES:
            shutil.copyfile(run_directory / name, directory / name)
        for name in EVIDENCE_DIRECTORIES:
            shutil.rmtree(directory / name, ignore_errors=True)
            copy_directory(run_directory / name, directory / name)
        write_record(directory / _EVIDENCE_FILE_NAME, evidence)


class Measurement(Record):
    """One sample of a container: memory in bytes, CPU in cores since the sample before, limits as the kernel has them.

    `at` is UTC in ISO 8601 with milliseconds, as everywhere in this file.
    """

    at: str
    memory: int
    memory_limit: int
    cpu: float
    pids: int
    pids_limit: int


class ServiceEvent(Record):
    """Something that happened to a service, or a check that was made of it and took `seconds` up to `at`.

    `outcome` is that of a check, or how a service ended: `out of memory`, or `exit code N`.
    """

    at: str
    kind: Literal["started", "ready", "check", "ended"]
    service: str
    name: str = ""
    outcome: str = ""
    seconds: float = 0.0


class Metrics(Record):
    """A run's measurements by service, and its events in the order of time."""

    schema_: Literal["lyra.metrics/1"] = Field(default="lyra.metrics/1", alias="schema")
    events: list[ServiceEvent]
    services: dict[str, list[Measurement]]


def create_service_event(
    kind: Literal["started", "ready", "check", "ended"],
    service: str,
    *,
    name: str = "",
    outcome: str = "",
    seconds: float = 0.0,
) -> ServiceEvent:
    """An event of this moment."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ServiceEvent(at=at, kind=kind, service=service, name=name, outcome=outcome, seconds=round(seconds, 3))
