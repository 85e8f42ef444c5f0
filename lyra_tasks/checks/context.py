"""Models of a test run: options, plan and outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.checks.cached_results import PartKeys
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.checks.rule_run import RuleRun
from lyra_tasks.checks.stages.plan import PlannedStage
from lyra_tasks.config.models import Test
from lyra_tasks.engine.bases.resolve import ResolvedBase
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.admission import Capacity
from lyra_tasks.records.evidence import CHECKS_DIRECTORY, Evidence, SetKey
from lyra_tasks.rules.deviations import RuleReport

_INPUTS_DIRECTORY = "inputs"


def assign_result_directories(tests: Iterable[Test]) -> dict[str, str]:
    """Assign a unique directory name, derived from its own name, to each check that has result files."""
    directories: dict[str, str] = {}
    for test in tests:
        if test.is_image_check or test.is_suite or test.kind == "run":
            slug = re.sub(r"[^a-z0-9]+", "-", test.name.lower()).strip("-")[:60] or "check"
            duplicates = [name for name in directories.values() if name.rpartition("~")[0] == slug or name == slug]
            directories[test.name] = f"{slug}~{len(duplicates) + 1}" if duplicates else slug
    return directories


@dataclass(frozen=True)
class TestOptions:
    """How checks are run: whether the first failure stops them, how often, whether the services keep running.

    With `fresh`, what has passed before is run again. With `failed_first`, groups that failed in the last test are the
    first to start.
    """

    fail_fast: bool = False
    repeat: int = 1
    keep_running: bool = False
    fresh: bool = False
    failed_first: bool = False

    @property
    def uses_cached_results(self) -> bool:
        """Whether what has passed with the same inputs is not run again."""
        return not self.fresh and not self.keep_running and self.repeat == 1


@dataclass(frozen=True)
class TestRun:
    """A planned test run; a partial one leaves out checks, and records no evidence.

    The groups of a batch run in parallel. `stages` and `result_directories` go by the name of the check, `bases` are
    the base images of the stages, `inputs` the files that were hashed into the set, by path. `rules` are being checked.
    """

    work: Workspace
    batches: tuple[tuple[PlannedGroup, ...], ...]
    stages: Mapping[str, PlannedStage]
    result_directories: Mapping[str, str]
    bases: tuple[ResolvedBase, ...]
    set_key: SetKey
    capacity: Capacity
    part_hashes: Mapping[str, str]
    part_keys: PartKeys
    inputs: Mapping[str, bytes]
    rules: RuleRun
    is_partial: bool
    options: TestOptions

    @property
    def rule_report(self) -> RuleReport:
        """The results of the rule checks, once they have ended."""
        return self.rules.wait()

    def result_directory(self, group: PlannedGroup, test: Test) -> Path:
        """Return the directory for the result files of a check."""
        return self.work.run_directory / CHECKS_DIRECTORY / group.label / self.result_directories[test.name]

    def write_input(self, path: str) -> Path:
        """Write a file that was hashed into the set to the run's directory, for a program that reads it by path."""
        target = self.work.run_directory / _INPUTS_DIRECTORY / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.inputs[path])
        return target


@dataclass(frozen=True)
class TestOutcome:
    """The result of a test run; `error` is why it ended early, if a service failed.

    `addresses` are the address variables of the services that keep running.
    """

    test_run: TestRun
    evidence: Evidence
    addresses: Mapping[str, str]
    error: CheckFailedError | None
