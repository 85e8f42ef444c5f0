"""Evidence: what was tested, and with what result, keyed by the set of everything that took part.

The set is the config digests of the project's images, the digests of external images, and a hash of the effective
services, tests and rules. Change any of them and it is another set, without evidence.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import copy_folder
from lyra_tasks.records.store import Record, canonical, read_record, write_record

_VERDICT = "evidence.json"
LOGS, CHECKS = "logs", "checks"
FILES = ("tests.json", "tests.xml", "metrics.json")
FOLDERS = (LOGS, CHECKS)
"""What services printed, and what checks brought: each a folder that a run may lack."""
MERGED_LOG, BUILD_LOG = "_all.log", "_build.log"
"""Logs of no service: their names begin as no service's does."""


class SetKey(Record):
    """What a verdict is about."""

    images: dict[str, str] = Field(description="image name -> config digest")
    externals: dict[str, str] = Field(description="service -> image id of the double it ran")
    effective: str = Field(description="hash of the effective services, tests, configs and rules")

    @property
    def digest(self) -> str:
        """The set's name: sha256 over its canonical form."""
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode()).hexdigest()


def service_logs(folder: Path) -> list[Path]:
    """The logs of services in a run's folder of logs; those of a group of checks lie in a folder of its name."""
    return [path for path in sorted(folder.rglob("*.log")) if path.name not in {MERGED_LOG, BUILD_LOG}]


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


class ServiceUse(Record):
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
    parts: dict[str, str] = Field(default_factory=dict)
    passed: bool
    run: str
    started_at: str
    seconds: float
    engine: dict[str, str]
    checks: list[CheckResult]
    rules: list[RuleResult]
    use: dict[str, ServiceUse] = Field(description="by service; in the lab of a group, by GROUP/SERVICE")


class EvidenceStore:
    """The evidence of one checkout: per set a folder with the verdict and the files it rests on."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "evidence"

    def folder(self, digest: str) -> Path:
        """Where the files of a set lie: evidence.json, tests.json, tests.xml, metrics.json, logs/, checks/."""
        return self._folder / digest

    def read(self, key: SetKey) -> Evidence | None:
        """The last verdict over this very set, or None."""
        return read_record(self.folder(key.digest) / _VERDICT, Evidence)

    def latest(self) -> Evidence | None:
        """The last verdict over any set; those of an older schema do not count."""
        found = []
        for path in self._folder.glob(f"*/{_VERDICT}"):
            with suppress(PreconditionError):
                found.append(read_record(path, Evidence))
        return max((each for each in found if each), key=lambda each: (each.started_at, each.run), default=None)

    def write(self, evidence: Evidence, files: Path) -> None:
        """Keep the verdict and copy what it rests on (`FILES`, `FOLDERS`) out of the run folder `files`."""
        folder = self.folder(evidence.set.digest)
        folder.mkdir(parents=True, exist_ok=True)
        # an earlier verdict must not stand beside files of this one, should this end in the middle
        (folder / _VERDICT).unlink(missing_ok=True)
        for name in FILES:
            shutil.copyfile(files / name, folder / name)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
            copy_folder(files / name, folder / name)
        write_record(folder / _VERDICT, evidence)
