"""Results of `status`, `history`, `explain`, `doctor` and `stats`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lyra_tasks.records.evidence import ServiceUsage

DeviationState = Literal["used", "unused", "expired", "unknown"]
DiagnosisState = Literal["ok", "warning", "error"]
ItemState = Literal["current", "missing", "stale", "failed", "refused", "notice"]


@dataclass(frozen=True)
class TaskResult:
    """The result of one task of a run; `message` is its error."""

    task: str
    exit_code: int
    message: str
    seconds: float


@dataclass(frozen=True)
class RunSummary:
    """One command line, the results of its tasks, and how many objects it created and removed.

    `exit_code` is that of the last task, or None if none has finished.
    """

    id: str
    started_at: str
    user: str
    command: tuple[str, ...]
    tasks: tuple[TaskResult, ...]
    created: int
    removed: int
    exit_code: int | None


@dataclass(frozen=True)
class JournalCheck:
    """The file of the journal, the number of its entries, and what is wrong with their hash chain.

    `compared` are bundles that hold entries of it, `not_compared` others with the reason.
    """

    journal: str
    entries: int
    problems: tuple[str, ...]
    compared: tuple[str, ...] = ()
    not_compared: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplainedItem:
    """One line of an explanation."""

    subject: str
    state: ItemState
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """The state of each part, the command to run next, and a manual step before it."""

    items: tuple[ExplainedItem, ...]
    command: str
    manual_step: str = ""
    schema: str = "lyra.explain/1"


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check of `doctor`, with a fix unless the state is ok."""

    subject: str
    state: DiagnosisState
    message: str
    fix: str = ""


@dataclass(frozen=True)
class RunUsage:
    """Peak usage of the services of a run, or current usage if it is `live`."""

    run: str
    live: bool
    services: Mapping[str, ServiceUsage]


@dataclass(frozen=True)
class ImageRow:
    """An image and its last build or fetch, if any, with its size in bytes; `problem` says why it is not current.

    `origin` is the reference of a third-party image, which has no version and no commit, and empty for an own one.
    """

    name: str
    version: str
    commit: str
    dirty: bool
    built_at: str
    size: int
    digest: str
    problem: str
    origin: str = ""


@dataclass(frozen=True)
class TestStatus:
    """The last test result of the current set; `rule_outcomes` counts rule results.

    `promotion_refusal` lists rules by which `promote` would refuse a passed set.
    """

    __test__ = False

    passed: bool
    run: str
    started_at: str
    check_count: int
    failed: tuple[str, ...]
    rule_outcomes: Mapping[str, int]
    promotion_refusal: str = ""


@dataclass(frozen=True)
class DeviationRow:
    """A deviation and when it expires (a date); `days_left` is negative after that.

    The state is `unknown` until the rule was checked. `expires_soon` is within 30 days.
    """

    rule: str
    scope: str
    owner: str
    expires: str
    state: DeviationState
    days_left: int
    expires_soon: bool


@dataclass(frozen=True)
class LabService:
    """A container of a lab: the engine's state of it, addresses by port name, current usage (None unless running).

    Memory is in bytes, CPU in cores.
    """

    name: str
    state: str
    ports: Mapping[str, str]
    memory: int | None
    memory_limit: int
    cpu: float | None
    cpu_limit: float


@dataclass(frozen=True)
class LabRow:
    """A running lab: `kind` is `development`, `test` while its process is active, or `kept running`."""

    run: str
    kind: str
    services: tuple[LabService, ...]


@dataclass(frozen=True)
class RunRow:
    """A run of the journal: its command line, and the results of its tasks."""

    run: str
    started_at: str
    command: str
    tasks: tuple[TaskResult, ...]


@dataclass(frozen=True)
class StorageRow:
    """How much there is of something, its bytes, and its limit; `expired` is what would go by itself."""

    title: str
    count: int
    size: int
    limit: str
    expired: tuple[str, ...] = ()
    expired_size: int = 0


@dataclass(frozen=True)
class Status:
    """Everything that `status` shows; `unknown_reason` says why there is no test status.

    `not_asked` are other engines that hold objects by the journal.
    """

    project: str
    version: str
    branch: str
    commit: str
    dirty: bool
    engine: str
    has_engine: bool
    images: tuple[ImageRow, ...]
    test: TestStatus | None
    unknown_reason: str
    promoted_version: str
    newest_version: str
    deviations: tuple[DeviationRow, ...]
    labs: tuple[LabRow, ...]
    leftovers: tuple[str, ...]
    runs: tuple[RunRow, ...]
    next_command: str
    next_reason: str
    not_asked: tuple[str, ...] = ()
    storage: tuple[StorageRow, ...] = ()
    schema: str = "lyra.status/1"
