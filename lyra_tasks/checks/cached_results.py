"""Use results of earlier runs again: what has passed with the same inputs on the same engine.

A check of an image is used again alone, checks of services only together with all others of their group, since they
share an environment. Results of a command on this machine may depend on anything here, and are never used again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.documents import parse_json_object
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.evidence import (
    BUILD_LOG,
    LOGS_DIRECTORY,
    CheckResult,
    Measurement,
    Metrics,
    RuleResult,
    ServiceEvent,
    ServiceUsage,
)
from lyra_tasks.records.recorded_test import RecordedTest

IMAGE_KINDS = frozenset({"stage", "structure"})
_METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class PartKeys:
    """The keys of all parts of a run whose results can be used again: checks of images by title, groups by name."""

    checks: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CachedCheck:
    """A check of an image that has passed in an earlier run."""

    recorded: RecordedTest
    result: CheckResult

    def restore(self, run_directory: Path, directory: Path, *, name: str, group: str) -> CheckResult:
        """Copy the files of the check to `directory` in the run's directory, and return its result."""
        return restore_check(self.recorded, self.result, run_directory, directory, name=name, group=group)


@dataclass(frozen=True)
class CachedGroup:
    """The checks of services of a group that have all passed in an earlier run, where the group was called `name`."""

    recorded: RecordedTest
    name: str

    @property
    def run(self) -> str:
        """Return the run that the results come from."""
        return next((check.cached_from for check in self.results if check.cached_from), self.recorded.evidence.run)

    @property
    def results(self) -> list[CheckResult]:
        """Return the results of the checks of services."""
        return [
            check
            for check in self.recorded.evidence.checks
            if check.group == self.name and check.kind not in IMAGE_KINDS
        ]

    def restore(self, run_directory: Path, name: str) -> RestoredGroup:
        """Copy the logs to the run's directory, and return what the run has found, for a group called `name`."""
        for file in self.log_files:
            self.recorded.copy_file(file, run_directory / LOGS_DIRECTORY / name / Path(file).name)
        run, evidence = self.run, self.recorded.evidence
        metrics = Metrics.model_validate(parse_json_object(self.recorded.read_file(_METRICS_FILE)))
        titles = {check.name for check in self.results}
        return RestoredGroup(
            checks=[check.model_copy(update={"cached_from": run, "group": name}) for check in self.results],
            usage={key: usage for label, usage in evidence.usage.items() if (key := self._rename(label, name))},
            measurements={key: rows for label, rows in metrics.services.items() if (key := self._rename(label, name))},
            events=[
                event.model_copy(update={"service": self._rename(event.service, name)})
                for event in metrics.events
                if self._rename(event.service, name) or (not event.service and event.name in titles)
            ],
            rules=evidence.rules,
        )

    @property
    def log_files(self) -> list[str]:
        """Return the names of the group's logs in the evidence."""
        directory = Path(LOGS_DIRECTORY, self.name)
        paths = map(Path, self.recorded.digests)
        return [path.as_posix() for path in paths if path.parent == directory and path.name != BUILD_LOG]

    def _rename(self, label: str, name: str) -> str:
        """Return the name of a service for the group `name`, or "" if it is one of another group."""
        group, _, service = label.rpartition("/")
        return (f"{name}/{service}" if name else service) if group == self.name and service else ""


@dataclass(frozen=True)
class RestoredGroup:
    """What an earlier run has found about a group; services are called as in this run."""

    checks: Sequence[CheckResult]
    usage: Mapping[str, ServiceUsage]
    measurements: Mapping[str, list[Measurement]]
    events: Sequence[ServiceEvent]
    rules: Sequence[RuleResult]


@dataclass(frozen=True)
class CachedResults:
    """The results that are used again: checks of images by title, groups by name."""

    checks: Mapping[str, CachedCheck] = field(default_factory=dict)
    groups: Mapping[str, CachedGroup] = field(default_factory=dict)


def restore_check(
    recorded: RecordedTest, result: CheckResult, run_directory: Path, directory: Path, *, name: str, group: str
) -> CheckResult:
    """Copy the files of a recorded check to `directory` in the run's directory, and return its result as one of it."""
    shutil.rmtree(directory, ignore_errors=True)
    for file in _list_files(recorded, result):
        recorded.copy_file(file, directory / Path(file).relative_to(result.directory))
    update = {
        "name": name,
        "group": group,
        "cached_from": result.cached_from or recorded.evidence.run,
        "directory": directory.relative_to(run_directory).as_posix(),
    }
    return result.model_copy(update=update)


def _list_files(recorded: RecordedTest, result: CheckResult) -> list[str]:
    return [name for name in recorded.digests if result.directory and name.startswith(f"{result.directory}/")]


def find_cached_results(work: Workspace, keys: PartKeys) -> CachedResults:
    """Return what has passed with the same keys, and whose evidence and files are as they were recorded."""
    runs = work.evidence.parts.find_runs([*keys.checks.values(), *keys.groups.values()])
    checks, groups = dict[str, CachedCheck](), dict[str, CachedGroup]()
    for title, key in keys.checks.items():
        if key in runs and (check := _find_check(runs[key], key)) is not None:
            checks[title] = check
    for name, key in keys.groups.items():
        if key in runs and (group := _find_group(runs[key], key)) is not None:
            groups[name] = group
    return CachedResults(checks, groups)


def _find_check(recorded: RecordedTest, key: str) -> CachedCheck | None:
    titles = {title for title, recorded_key in recorded.evidence.check_keys.items() if recorded_key == key}
    result = next((check for check in recorded.evidence.checks if check.title in titles), None)
    if result is None or result.outcome != "passed" or not recorded.is_intact(_list_files(recorded, result)):
        return None
    return CachedCheck(recorded, result)


def _find_group(recorded: RecordedTest, key: str) -> CachedGroup | None:
    names = [name for name, recorded_key in recorded.evidence.group_keys.items() if recorded_key == key]
    if not names:
        return None
    group = CachedGroup(recorded, names[0])
    has_passed = bool(group.results) and all(check.outcome == "passed" for check in group.results)
    return group if has_passed and recorded.is_intact([*group.log_files, _METRICS_FILE]) else None
