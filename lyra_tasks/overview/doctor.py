"""Diagnose problems of this machine and the project, each with a fix, from collected facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lyra_tasks import console
from lyra_tasks.cleanup.storage import describe_expired
from lyra_tasks.engine.client.facts import MIN_API_VERSION, EngineFacts, find_advisories, parse_version_numbers
from lyra_tasks.engine.objects.known_engines import UnaskedEngine
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.results.overview import Diagnosis, StorageRow

_MIN_BUILDX = (0, 10)
_MIN_FREE_BYTES, _LOW_FREE_BYTES = 1024**3, 5 * 1024**3
_MAX_CURES = 3
_MAX_CLOCK_SKEW_S = 5.0
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@dataclass(frozen=True)
class Disk:
    """The file system of a directory; `total_inodes` is 0 if their number is not fixed."""

    path: str
    free_bytes: int
    free_inodes: int
    total_inodes: int


@dataclass(frozen=True)
class SandboxFacts:
    """The state of the private engine: the configured mode, and why none can be started.

    `stray` describes an engine that runs without its state directory, `other_strays` those of other projects by pid.
    `limits` are those of the running one, empty if there are none.
    """

    mode: str
    is_running: bool = False
    has_crashed: bool = False
    obstacle: str = ""
    stray: str = ""
    other_strays: Mapping[int, str] = field(default_factory=dict)
    limits: str = ""


@dataclass(frozen=True)
class DoctorFacts:
    """Everything that is diagnosed; a LyraError stands for a fact that could not be collected.

    `components` are the versions of the engine's parts. Times are seconds since 1970; without a commit `commit_time` is
    0, without an engine `engine_skew_s` is None. `host_address` is None for an engine of this machine, and empty if
    services cannot be reached. `leftovers` are the objects of crashed runs, `unknown_objects` have the checkout's
    label, but its journal does not know them, `orphans` are those of deleted checkouts, `unasked_engines` hold objects
    by the journal, `active_runs` are the process ids of runs, `ignored_variables` have no effect in Lyra,
    `credential_errors` what is wrong with credential helpers. `cures` say, by the path of each low disk, what frees how
    many bytes there.
    """

    config: str | LyraError
    engine: EngineFacts | LyraError | None
    components: Mapping[str, str] = field(default_factory=dict)
    buildx: str | LyraError = ""
    disks: tuple[Disk, ...] = ()
    git: str | LyraError = ""
    commit_time: int = 0
    now: float = 0.0
    engine_skew_s: float | None = None
    host_address: str | None = None
    sandbox: SandboxFacts = SandboxFacts("never")
    crashed_runs: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    unknown_objects: tuple[str, ...] = ()
    orphans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unasked_engines: tuple[UnaskedEngine, ...] = ()
    active_runs: Mapping[str, int] = field(default_factory=dict)
    ignored_variables: tuple[str, ...] = ()
    credential_errors: tuple[LyraError, ...] = ()
    lock_error: LyraError | None = None
    journal_problems: tuple[str, ...] = ()
    storage: tuple[StorageRow, ...] = ()
    cures: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)


def diagnose(facts: DoctorFacts) -> tuple[Diagnosis, ...]:
    """Return the results of all checks."""
    return (
        _diagnose_fact("config", facts.config),
        _diagnose_fact("git", facts.git),
        *_check_engine(facts),
        *_check_vulnerabilities(facts),
        *_check_buildx(facts),
        *_check_credentials(facts),
        _check_sandbox(facts),
        *_check_other_sandboxes(facts),
        *(diagnose_disk(disk, facts.cures.get(disk.path, ())) for disk in facts.disks),
        *_check_storage(facts),
        _check_clock(facts),
        *_check_leftovers(facts),
        _check_locks(facts),
        *_check_journal(facts),
        *_check_environment(facts),
    )


def require_no_errors(diagnoses: tuple[Diagnosis, ...]) -> None:
    """Raise PreconditionError if a check found an error."""
    failed_subjects = [diagnosis.subject for diagnosis in diagnoses if diagnosis.state == "error"]
    if failed_subjects:
        count = console.format_count(len(failed_subjects), "problem")
        raise PreconditionError(f"{count} found: {', '.join(failed_subjects)}", hint="Apply the fixes listed above")


def _diagnose_fact(subject: str, fact: str | LyraError) -> Diagnosis:
    if isinstance(fact, LyraError):
        return Diagnosis(subject, "error", "; ".join([fact.message, *fact.details]), fact.hint)
    return Diagnosis(subject, "ok", fact)


def _check_engine(facts: DoctorFacts) -> Iterator[Diagnosis]:
    engine = facts.engine
    if engine is None:
        yield Diagnosis("engine", "ok", "none runs; a private engine is started when needed")
        return
    if isinstance(engine, LyraError):
        yield _diagnose_fact("engine", engine)
        return
    kind = "private engine" if engine.sandboxed else "engine"
    resources = f"{console.format_count(engine.cpus, 'CPU')}, {console.format_bytes(engine.memory)}"
    yield Diagnosis("engine", "ok", f"{kind} {engine.version}, {engine.platform}, {resources}")
    api = ".".join(map(str, engine.api))
    if engine.api < (1, 45):
        min_api = ".".join(map(str, MIN_API_VERSION))
        yield Diagnosis(
            "API", "warning", f"{api} (minimum {min_api}): configs and secrets of services are bind mounts",
            "Update to Docker Engine 26, which mounts them from a volume",
        )  # fmt: skip
    else:
        yield Diagnosis("API", "ok", api)
    yield Diagnosis("store", "ok", f"{engine.store} image store")
    if engine.missing_limits:
        missing = ", ".join(engine.missing_limits)
        message = f"this engine cannot limit {missing}, so `test` and `create` refuse it"
        yield Diagnosis("limits", "error", message, engine.limits_fix)
    if facts.host_address:
        yield Diagnosis("ports", "ok", f"services are reached at {facts.host_address}")
    elif facts.host_address is not None:
        message = "services with ports cannot be reached from this container: its network has no gateway"
        yield Diagnosis("ports", "warning", message, "Run it with `--network bridge` or `--network host`")
    at_once = "as many images at once, of all projects, as host_share leaves CPUs"
    limited = f"the private engine has {facts.sandbox.limits}, with the steps of builds"
    unlimited = "the engine does not limit CPUs and memory of their steps"
    yield Diagnosis("builds", "ok", f"{at_once}; {limited if facts.sandbox.limits else unlimited}")


def _check_vulnerabilities(facts: DoctorFacts) -> Iterator[Diagnosis]:
    advisories = find_advisories(facts.components)
    for advisory in advisories:
        version = facts.components[advisory.component]
        fixed_in = " or ".join(".".join(map(str, fixed)) for fixed in advisory.fixed_versions)
        message = f"{advisory.component} {version}, by its version, has {advisory.title}"
        fix = f"Update to {fixed_in}; your distribution may have backported the fix"
        yield Diagnosis("vulnerabilities", "warning", message, fix)
    if facts.components and not advisories:
        versions = ", ".join(f"{name} {version}" for name, version in facts.components.items())
        yield Diagnosis("vulnerabilities", "ok", versions)


def _check_buildx(facts: DoctorFacts) -> Iterator[Diagnosis]:
    buildx = facts.buildx
    if buildx and isinstance(buildx, str) and parse_version_numbers(buildx) < _MIN_BUILDX:
        yield Diagnosis("buildx", "error", f"{buildx} is too old", "Install buildx 0.10 or newer")
    elif buildx:
        yield _diagnose_fact("buildx", buildx)


def _check_credentials(facts: DoctorFacts) -> Iterator[Diagnosis]:
    for error in facts.credential_errors:
        yield Diagnosis("credentials", "warning", error.message, error.hint)


def _check_sandbox(facts: DoctorFacts) -> Diagnosis:
    sandbox = facts.sandbox
    if sandbox.stray:
        return Diagnosis("sandbox", "error", sandbox.stray, "Run `clean`, which ends it and keeps its data")
    if sandbox.has_crashed:
        return Diagnosis("sandbox", "warning", "the private engine crashed", "Run `engine.down`")
    if sandbox.is_running:
        return Diagnosis("sandbox", "ok", "running")
    if sandbox.mode == "never":
        return Diagnosis("sandbox", "ok", "not used")
    if sandbox.obstacle:
        is_needed = sandbox.mode == "always" or isinstance(facts.engine, LyraError) or facts.engine is None
        message = f"cannot start a private engine: {sandbox.obstacle}"
        fix = "Start Docker and name it in [engine] context, or run as root on Debian or Ubuntu"
        return Diagnosis("sandbox", "error" if is_needed else "warning", message, fix)
    return Diagnosis("sandbox", "ok", "started when needed")


def _check_other_sandboxes(facts: DoctorFacts) -> Iterator[Diagnosis]:
    for pid, description in facts.sandbox.other_strays.items():
        yield Diagnosis("sandbox", "warning", description, f"Run `clean` in its checkout, or, as root, `kill {pid}`")


def is_low(disk: Disk) -> bool:
    """Return whether a disk is full, or soon will be."""
    return diagnose_disk(disk).state != "ok"


def diagnose_disk(disk: Disk, cures: Sequence[tuple[str, int]] = ()) -> Diagnosis:
    """Return whether a disk is full, or soon will be; `cures` say what frees how many bytes, the most first."""
    free_inode_ratio = disk.free_inodes / disk.total_inodes if disk.total_inodes else 1.0
    message = f"{disk.path}: {console.format_bytes(disk.free_bytes)}, {free_inode_ratio:.0%} of inodes free"
    measured = ", or ".join(f"{cure} (frees up to {console.format_bytes(size)})" for cure, size in cures[:_MAX_CURES])
    fix = f"{measured[:1].upper()}{measured[1:]}" or "Run `clean`, then `clean --cache`, and delete old bundles"
    if disk.free_bytes < _MIN_FREE_BYTES or free_inode_ratio < 0.01:
        return Diagnosis("disk", "error", message, fix)
    if disk.free_bytes < _LOW_FREE_BYTES or free_inode_ratio < 0.1:
        return Diagnosis("disk", "warning", message, fix)
    return Diagnosis("disk", "ok", message)


def _check_storage(facts: DoctorFacts) -> Iterator[Diagnosis]:
    for row in facts.storage:
        size = f", {console.format_bytes(row.size)}" if row.size else ""
        expired = describe_expired(row)
        goes = f"; {expired} would go, see `clean --dry-run`" if expired else ""
        yield Diagnosis("storage", "ok", f"{row.title}: {row.count}{size} (limit: {row.limit}){goes}")


def _check_clock(facts: DoctorFacts) -> Diagnosis:
    fix = "Synchronize this machine's clock (NTP); versions, evidence and signatures contain its time"
    ahead, skew = facts.commit_time - facts.now, facts.engine_skew_s
    if ahead > 1:
        return Diagnosis("clock", "warning", f"the last commit is {ahead:.0f} s in the future", fix)
    if skew is not None and abs(skew) > _MAX_CLOCK_SKEW_S:
        return Diagnosis("clock", "warning", f"the engine's clock differs by {skew:+.0f} s", fix)
    comparisons = ["later than the last commit"] if facts.commit_time else []
    comparisons += ["in sync with the engine"] if skew is not None else []
    return Diagnosis("clock", "ok", ", ".join(comparisons) or "not compared: no commit, and no engine is running")


def _check_leftovers(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.crashed_runs:
        message = f"{len(facts.crashed_runs)} run(s) were killed, leftovers: {', '.join(facts.leftovers) or 'none'}"
        yield Diagnosis("leftovers", "warning", message, "Run `clean`")
    if facts.unknown_objects:
        message = f"the journal does not know {', '.join(facts.unknown_objects)}, which have this checkout's label"
        yield Diagnosis("leftovers", "warning", message, "Run `clean`, which says how to remove them")
    for root, leftovers in facts.orphans.items():
        message = f"{root} was deleted, leftovers: {', '.join(leftovers)}"
        fix = f"Run `clean --gone`, or restore {root} and run `clean` there"
        yield Diagnosis("leftovers", "warning", message, fix)
    for engine in facts.unasked_engines:
        yield Diagnosis("leftovers", "warning", f"not asked: {engine}", engine.fix)
    if not (facts.crashed_runs or facts.unknown_objects or facts.orphans or facts.unasked_engines):
        yield Diagnosis("leftovers", "ok", "none")


def _check_locks(facts: DoctorFacts) -> Diagnosis:
    holders = ", ".join(f"{run} (pid {pid})" for run, pid in facts.active_runs.items())
    return _diagnose_fact("locks", facts.lock_error or (f"held by active runs: {holders}" if holders else "free"))


def _check_journal(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.journal_problems:
        message = f"{len(facts.journal_problems)} problem(s), the first: {facts.journal_problems[0]}"
        yield Diagnosis("journal", "warning", message, "Do not rely on its history; it was edited")


def show_diagnoses(diagnoses: tuple[Diagnosis, ...]) -> tuple[Diagnosis, ...]:
    """Show a line for each diagnosis, and below it the fix."""
    if console.print_result(diagnoses):
        return diagnoses
    width = max(len(diagnosis.subject) for diagnosis in diagnoses)
    for diagnosis in diagnoses:
        state = console.style(diagnosis.state.ljust(7), _COLOURS[diagnosis.state])
        console.print(f"{state}  {diagnosis.subject.ljust(width)}  {diagnosis.message}")
        if diagnosis.fix:
            console.print(f"{' ' * (width + 11)}fix: {diagnosis.fix}")
    return diagnoses


def _check_environment(facts: DoctorFacts) -> Iterator[Diagnosis]:
    if facts.ignored_variables:
        names = " ".join(facts.ignored_variables)
        message = f"ignored, also for the programs that Lyra starts: {', '.join(facts.ignored_variables)}"
        yield Diagnosis("environment", "warning", message, f"Run `unset {names}` if they are not for other programs")
