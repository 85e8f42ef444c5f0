"""doctor: what on this machine will stand in the way, each with what mends it. A pure function of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from lyra_tasks import console
from lyra_tasks.engine.client.connect import MIN_API_VERSION, EngineFacts, parse_version_numbers
from lyra_tasks.errors import LyraError, PreconditionError

DiagnosisState = Literal["ok", "warning", "fault"]

_MIN_BUILDX = (0, 10)
_GB = 1000**3
_MAX_CLOCK_SKEW_S = 5.0  # seconds between this machine's clock and the engine's


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at; `fix` says what to do unless all is well."""

    subject: str
    state: DiagnosisState
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Disk:
    """A folder's file system: bytes and inodes that are free, and how many inodes there are (0: no fixed number)."""

    path: str
    free_bytes: int
    free_inodes: int
    total_inodes: int


@dataclass(frozen=True)
class SandboxFacts:
    """What is known of the private engine: the configured mode, whether one runs, has crashed, or cannot be made."""

    mode: str
    is_running: bool = False
    has_crashed: bool = False
    obstacle: str = ""


@dataclass(frozen=True)
class DoctorFacts:
    """All that was found out; a LyraError stands where something could not be, and says why.

    `components` are the versions of what the engine consists of. Times are seconds since 1970. `crashed` are runs that
    were killed, `left` objects that they left, `orphans` objects by the checkout that is gone, `live` the processes of
    runs that are going on.
    """

    config: str | LyraError
    engine: EngineFacts | LyraError | None
    components: Mapping[str, str] = field(default_factory=dict)
    buildx: str | LyraError = ""
    disks: tuple[Disk, ...] = ()
    git: str | LyraError = ""
    commit_time: int = 0
    now: float = 0.0
    engine_time: float | None = None
    sandbox: SandboxFacts = SandboxFacts("never")
    crashed_runs: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    orphans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    active_runs: Mapping[str, int] = field(default_factory=dict)
    lock_error: LyraError | None = None
    journal_problems: tuple[str, ...] = ()


def diagnose(facts: DoctorFacts) -> tuple[Diagnosis, ...]:
    """Everything that is looked at, in the order in which it is needed."""
    return (
        *_check_config(facts), *_check_git(facts), *_check_engine(facts), *_check_vulnerabilities(facts), *_check_buildx(facts), *_check_sandbox(facts),
        *(_check_disk(disk) for disk in facts.disks), *_check_clock(facts), *_check_leftovers(facts), *_check_locks(facts), *_check_journal(facts),
    )  # fmt: skip


def require_no_errors(diagnoses: tuple[Diagnosis, ...]) -> None:
    """PreconditionError if there is a fault; it has been shown."""
    failed_subjects = [diagnosis.subject for diagnosis in diagnoses if diagnosis.state == "fault"]
    if failed_subjects:
        raise PreconditionError(
            f"{len(failed_subjects)} fault(s): {', '.join(failed_subjects)}", hint="mend them as it is said above"
        )


def _error_diagnosis(subject: str, error: LyraError) -> Diagnosis:
    return Diagnosis(subject, "fault", "; ".join([error.message, *error.details]), error.hint)


def _check_config(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if isinstance(facts.config, LyraError):
        yield _error_diagnosis("config", facts.config)
    else:
        yield Diagnosis("config", "ok", facts.config)


def _check_git(facts: DoctorFacts) -> Iterator[Diagnosis]:
    yield _error_diagnosis("git", facts.git) if isinstance(facts.git, LyraError) else Diagnosis("git", "ok", facts.git)


def _check_engine(facts: DoctorFacts) -> Iterator[Diagnosis]:
    engine = facts.engine
    if engine is None:
        yield Diagnosis("engine", "ok", "none runs; the private one is started when it is needed")
        return
    if isinstance(engine, LyraError):
        yield _error_diagnosis("engine", engine)
        return
    kind = "private engine" if engine.sandboxed else "engine"
    resources = f"{engine.cpus} CPUs, {console.format_bytes(engine.memory)}"
    yield Diagnosis("engine", "ok", f"{kind} {engine.version}, {engine.platform}, {resources}")
    api = ".".join(map(str, engine.api))
    if engine.api < (1, 45):
        min_api = ".".join(map(str, MIN_API_VERSION))
        yield Diagnosis(
            "API", "warning", f"{api} (at least {min_api}): configs and secrets of a lab are bind mounts",
            "Docker Engine 26 or newer mounts them out of a volume",
        )  # fmt: skip
    else:
        yield Diagnosis("API", "ok", api)
    yield Diagnosis("store", "ok", f"{engine.store} image store")


def _check_vulnerabilities(facts: DoctorFacts) -> Iterator[Diagnosis]:
    for component in vulnerable_components(facts.components):
        yield Diagnosis(
            "known faults", "warning", f"{component.component} {component.version}, by its number, has {component.advisory}",
            f"update to {component.fixed_in}; a distribution may have mended it under an older number",
        )  # fmt: skip
    if facts.components and not list(vulnerable_components(facts.components)):
        yield Diagnosis(
            "known faults", "ok", ", ".join(f"{name} {version}" for name, version in facts.components.items())
        )


def _check_buildx(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if isinstance(facts.buildx, LyraError):
        yield _error_diagnosis("buildx", facts.buildx)
    elif facts.buildx and parse_version_numbers(facts.buildx) < _MIN_BUILDX:
        yield Diagnosis("buildx", "fault", f"{facts.buildx} is too old", "install buildx 0.10 or newer")
    elif facts.buildx:
        yield Diagnosis("buildx", "ok", facts.buildx)


def _check_sandbox(facts: DoctorFacts) -> Iterator[Diagnosis]:
    sandbox = facts.sandbox
    if sandbox.has_crashed:
        yield Diagnosis("sandbox", "warning", "the private engine ended without having been ended", "engine.down")
    elif sandbox.is_running:
        yield Diagnosis("sandbox", "ok", "the private engine runs")
    elif sandbox.mode == "never":
        yield Diagnosis("sandbox", "ok", "not used")
    elif sandbox.obstacle:
        is_needed = sandbox.mode == "always" or isinstance(facts.engine, LyraError) or facts.engine is None
        yield Diagnosis(
            "sandbox", "fault" if is_needed else "warning", f"no private engine can be made here: {sandbox.obstacle}",
            "start Docker and name it in [engine] context, or run this as root on Debian or Ubuntu",
        )  # fmt: skip
    else:
        yield Diagnosis("sandbox", "ok", "can be started when it is needed")


def _check_disk(disk: Disk) -> Diagnosis:
    free_inode_ratio = disk.free_inodes / disk.total_inodes if disk.total_inodes else 1.0
    message = f"{disk.path}: {console.format_bytes(disk.free_bytes)}, {free_inode_ratio:.0%} of inodes free"
    fix = "free space there, for example with `clean --cache` or by deleting old bundles"
    if disk.free_bytes < _GB or free_inode_ratio < 0.01:
        return Diagnosis("disk", "fault", message, fix)
    return (
        Diagnosis("disk", "warning", message, fix)
        if disk.free_bytes < 5 * _GB or free_inode_ratio < 0.1
        else Diagnosis("disk", "ok", message)
    )


def _check_clock(facts: DoctorFacts) -> Iterator[Diagnosis]:
    fix = "set this machine's clock (NTP): versions, evidence and signatures carry its time"
    if facts.commit_time > facts.now + 1:
        yield Diagnosis(
            "clock", "warning", f"the last commit is {facts.commit_time - facts.now:.0f} s in the future", fix
        )
    elif facts.engine_time is not None and abs(facts.engine_time - facts.now) > _MAX_CLOCK_SKEW_S:
        yield Diagnosis(
            "clock", "warning", f"the engine's clock is {facts.engine_time - facts.now:+.0f} s off this one", fix
        )
    else:
        yield Diagnosis("clock", "ok", "after the last commit, and with the engine")


def _check_leftovers(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.crashed_runs:
        message = (
            f"{len(facts.crashed_runs)} run(s) were killed: {', '.join(facts.leftovers) or 'nothing of theirs is left'}"
        )
        yield Diagnosis("leftovers", "warning", message, "clean")
    for root, leftovers in facts.orphans.items():
        yield Diagnosis(
            "leftovers", "warning", f"{root} is gone, and left {', '.join(leftovers)}",
            f"clean --gone (or bring a checkout back to {root}, and `clean` there)",
        )  # fmt: skip
    if not facts.crashed_runs and not facts.orphans:
        yield Diagnosis("leftovers", "ok", "none")


def _check_locks(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.lock_error is not None:
        yield _error_diagnosis("locks", facts.lock_error)
    elif facts.active_runs:
        holders = ", ".join(f"{run} (pid {pid})" for run, pid in facts.active_runs.items())
        yield Diagnosis("locks", "ok", f"held by runs that are going on: {holders}")
    else:
        yield Diagnosis("locks", "ok", "free")


def _check_journal(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.journal_problems:
        yield Diagnosis(
            "journal", "warning", f"{len(facts.journal_problems)} problem(s), the first: {facts.journal_problems[0]}",
            "somebody edited it; what it says of the past cannot be relied on",
        )  # fmt: skip


@dataclass(frozen=True)
class Advisory:
    """A fault of a component, and the first version without it in each of its release lines."""

    component: str
    title: str
    fixed_versions: tuple[tuple[int, ...], ...]


# From the projects' own advisories. A line that is not named, and is older than the newest that is, was never mended.
ADVISORIES = (
    Advisory("Engine", "CVE-2024-23651 and others (a build can reach files of the host)", ((24, 0, 9), (25, 0, 2))),
    Advisory("Engine", "CVE-2024-29018 (names leave an internal network)", ((23, 0, 11), (25, 0, 5), (26, 0, 0))),
    Advisory("runc", "CVE-2024-21626 (a container can reach the host)", ((1, 1, 12),)),
    Advisory("runc", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (the same)", ((1, 2, 8), (1, 3, 3))),
)


@dataclass(frozen=True)
class VulnerableComponent:
    """A component whose version has a known fault, and the versions that do not."""

    component: str
    version: str
    advisory: str
    fixed_in: str


def vulnerable_components(components: Mapping[str, str]) -> Iterator[VulnerableComponent]:
    """The known faults of these components, by their versions; what has no readable version has none."""
    for advisory in ADVISORIES:
        text = components.get(advisory.component, "")
        version = parse_version_numbers(text)
        if version and _is_vulnerable(version, advisory.fixed_versions):
            yield VulnerableComponent(
                advisory.component,
                text,
                advisory.title,
                " or ".join(".".join(map(str, version)) for version in advisory.fixed_versions),
            )


def _is_vulnerable(version: tuple[int, ...], fixed_versions: tuple[tuple[int, ...], ...]) -> bool:
    for fixed_version in fixed_versions:
        if version[:2] == fixed_version[:2]:
            return version < fixed_version
    return version < max(fixed_versions)


_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def print_diagnoses(diagnoses: tuple[Diagnosis, ...]) -> None:
    """A line for each finding, and below it what to do."""
    if console.is_json_mode():
        return console.print_json([asdict(diagnosis) for diagnosis in diagnoses])
    width = max(len(diagnosis.subject) for diagnosis in diagnoses)
    for diagnosis in diagnoses:
        console.print(
            f"{console.style(diagnosis.state.ljust(7), _COLOURS[diagnosis.state])}  {diagnosis.subject.ljust(width)}  {diagnosis.message}"
        )
        if diagnosis.fix:
            console.print(f"{' ' * (width + 11)}fix: {diagnosis.fix}")
    return None
