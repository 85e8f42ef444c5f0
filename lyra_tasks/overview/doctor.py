"""doctor: what on this machine will stand in the way, each with what mends it. A pure function of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lyra_tasks import console
from lyra_tasks.engine.connect import MIN_API, EngineFacts, version_numbers
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.overview.vulnerable import known_faults

State = Literal["ok", "warning", "fault"]

_MIN_BUILDX = (0, 10)
_GB = 1000**3
_SKEW = 5.0  # seconds between this machine's clock and the engine's


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` says what to do unless all is well."""

    what: str
    state: State
    said: str
    fix: str = ""


@dataclass(frozen=True)
class Disk:
    """A folder's file system: bytes and inodes that are free, and how many inodes there are (0: no fixed number)."""

    place: str
    free: int
    inodes_free: int
    inodes: int


@dataclass(frozen=True)
class SandboxFacts:
    """What is known of the private engine: the configured mode, whether one runs, has crashed, or cannot be made."""

    mode: str
    running: bool = False
    crashed: bool = False
    obstacle: str = ""


@dataclass(frozen=True)
class Facts:
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
    crashed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    orphans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    live: Mapping[str, int] = field(default_factory=dict)
    pins: LyraError | None = None
    journal: tuple[str, ...] = ()


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Everything that is looked at, in the order in which it is needed."""
    return (
        *_config(facts), *_git(facts), *_engine(facts), *_vulnerable(facts), *_buildx(facts), *_sandbox(facts),
        *(_disk(each) for each in facts.disks), *_clock(facts), *_leftovers(facts), *_locks(facts), *_journal(facts),
    )  # fmt: skip


def require_healthy(findings: tuple[Finding, ...]) -> None:
    """PreconditionError if there is a fault; it has been shown."""
    faults = [each.what for each in findings if each.state == "fault"]
    if faults:
        raise PreconditionError(f"{len(faults)} fault(s): {', '.join(faults)}", hint="mend them as it is said above")


def _fault(what: str, error: LyraError) -> Finding:
    return Finding(what, "fault", "; ".join([error.message, *error.details]), error.hint)


def _config(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.config, LyraError):
        yield _fault("config", facts.config)
    else:
        yield Finding("config", "ok", facts.config)


def _git(facts: Facts) -> Iterator[Finding]:
    yield _fault("git", facts.git) if isinstance(facts.git, LyraError) else Finding("git", "ok", facts.git)


def _engine(facts: Facts) -> Iterator[Finding]:
    engine = facts.engine
    if engine is None:
        yield Finding("engine", "ok", "none runs; the private one is started when it is needed")
        return
    if isinstance(engine, LyraError):
        yield _fault("engine", engine)
        return
    kind = "private engine" if engine.sandboxed else "engine"
    size = f"{engine.cpus} CPUs, {console.size(engine.memory)}"
    yield Finding("engine", "ok", f"{kind} {engine.version}, {engine.platform}, {size}")
    api = ".".join(map(str, engine.api))
    if engine.api < (1, 45):
        least = ".".join(map(str, MIN_API))
        yield Finding(
            "API", "warning", f"{api} (at least {least}): configs and secrets of a lab are bind mounts",
            "Docker Engine 26 or newer mounts them out of a volume",
        )  # fmt: skip
    else:
        yield Finding("API", "ok", api)
    yield Finding("store", "ok", f"{engine.store} image store")


def _vulnerable(facts: Facts) -> Iterator[Finding]:
    for fault in known_faults(facts.components):
        yield Finding(
            "known faults", "warning", f"{fault.component} {fault.version}, by its number, has {fault.names}",
            f"update to {fault.fixed}; a distribution may have mended it under an older number",
        )  # fmt: skip
    if facts.components and not list(known_faults(facts.components)):
        yield Finding("known faults", "ok", ", ".join(f"{name} {each}" for name, each in facts.components.items()))


def _buildx(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.buildx, LyraError):
        yield _fault("buildx", facts.buildx)
    elif facts.buildx and version_numbers(facts.buildx) < _MIN_BUILDX:
        yield Finding("buildx", "fault", f"{facts.buildx} is too old", "install buildx 0.10 or newer")
    elif facts.buildx:
        yield Finding("buildx", "ok", facts.buildx)


def _sandbox(facts: Facts) -> Iterator[Finding]:
    found = facts.sandbox
    if found.crashed:
        yield Finding("sandbox", "warning", "the private engine ended without having been ended", "engine.down")
    elif found.running:
        yield Finding("sandbox", "ok", "the private engine runs")
    elif found.mode == "never":
        yield Finding("sandbox", "ok", "not used")
    elif found.obstacle:
        needed = found.mode == "always" or isinstance(facts.engine, LyraError) or facts.engine is None
        yield Finding(
            "sandbox", "fault" if needed else "warning", f"no private engine can be made here: {found.obstacle}",
            "start Docker and name it in [engine] context, or run this as root on Debian or Ubuntu",
        )  # fmt: skip
    else:
        yield Finding("sandbox", "ok", "can be started when it is needed")


def _disk(disk: Disk) -> Finding:
    share = disk.inodes_free / disk.inodes if disk.inodes else 1.0
    said = f"{disk.place}: {console.size(disk.free)}, {share:.0%} of inodes free"
    fix = "free space there, for example with `clean --cache` or by deleting old bundles"
    if disk.free < _GB or share < 0.01:
        return Finding("disk", "fault", said, fix)
    return Finding("disk", "warning", said, fix) if disk.free < 5 * _GB or share < 0.1 else Finding("disk", "ok", said)


def _clock(facts: Facts) -> Iterator[Finding]:
    fix = "set this machine's clock (NTP): versions, evidence and signatures carry its time"
    if facts.commit_time > facts.now + 1:
        yield Finding(
            "clock", "warning", f"the last commit is {facts.commit_time - facts.now:.0f} s in the future", fix
        )
    elif facts.engine_time is not None and abs(facts.engine_time - facts.now) > _SKEW:
        yield Finding(
            "clock", "warning", f"the engine's clock is {facts.engine_time - facts.now:+.0f} s off this one", fix
        )
    else:
        yield Finding("clock", "ok", "after the last commit, and with the engine")


def _leftovers(facts: Facts) -> Iterator[Finding]:
    if facts.crashed:
        said = f"{len(facts.crashed)} run(s) were killed: {', '.join(facts.left) or 'nothing of theirs is left'}"
        yield Finding("leftovers", "warning", said, "clean")
    for root, names in facts.orphans.items():
        yield Finding(
            "leftovers", "warning", f"{root} is gone, and left {', '.join(names)}",
            f"clean --gone (or bring a checkout back to {root}, and `clean` there)",
        )  # fmt: skip
    if not facts.crashed and not facts.orphans:
        yield Finding("leftovers", "ok", "none")


def _locks(facts: Facts) -> Iterator[Finding]:
    if facts.pins is not None:
        yield _fault("locks", facts.pins)
    elif facts.live:
        running = ", ".join(f"{run} (pid {pid})" for run, pid in facts.live.items())
        yield Finding("locks", "ok", f"held by runs that are going on: {running}")
    else:
        yield Finding("locks", "ok", "free")


def _journal(facts: Facts) -> Iterator[Finding]:
    if facts.journal:
        yield Finding(
            "journal", "warning", f"{len(facts.journal)} problem(s), the first: {facts.journal[0]}",
            "somebody edited it; what it says of the past cannot be relied on",
        )  # fmt: skip
