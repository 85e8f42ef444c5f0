"""Plan a cleanup: objects that label and journal both prove ours, and engines that Lyra started. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lyra_tasks.engine.objects.disk_usage import DiskUsage
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, KINDS, NETWORK, EngineObject
from lyra_tasks.engine.objects.known_engines import UnaskedEngine
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex
from lyra_tasks.errors import LockedError
from lyra_tasks.records.cleanup import UnaskedEngineRecord

Level = Literal["objects", "cache", "all", "gone"]

WAIT_HINT = "Wait until it has finished, or stop it, then run `clean` again"


@dataclass(frozen=True)
class CleanupFacts:
    """Facts for planning the cleanup of the checkout at `root`.

    `owned` are the `engine_objects` that are ours by `ownership`. `live_runs` are active runs of other processes with
    their pids, `crashed_runs` were killed. `shared_images` were also created by another checkout, named by its project
    id. `states` are the checkout's state directories, one per name that the project had; the `*_sandboxes*` fields are
    those whose engine runs, was started by a command, runs without its record, or has data. `unasked_engines` hold
    objects by the journal; `missing_checkouts` describe what checkouts of a project with this name may have left.

    Of a missing checkout, `unmounted_reason` says why it may be on an unmounted disk, and `is_engine_in_use` that this
    project uses its private engine; `other_engines` are named in its journal, but cannot be searched from here.
    """

    root: Path = Path()
    project_id: str = ""
    engine_objects: tuple[EngineObject, ...] = ()
    owned: tuple[OwnedObject, ...] = ()
    ownership: OwnershipIndex = field(default_factory=OwnershipIndex)
    live_runs: Mapping[str, int] = field(default_factory=dict)
    crashed_runs: frozenset[str] = frozenset()
    has_unfinished_build: bool = False
    has_recent_build: bool = False
    shared_images: Mapping[OwnedObject, str] = field(default_factory=dict)
    temporary_files: tuple[Path, ...] = ()
    disk_usage: DiskUsage | None = None
    owns_builder: bool = False
    running_sandboxes: tuple[Path, ...] = ()
    auto_started_sandboxes: tuple[Path, ...] = ()
    stray_sandboxes: tuple[Path, ...] = ()
    states: tuple[Path, ...] = ()
    sandboxes_with_data: tuple[Path, ...] = ()
    unasked_engines: tuple[UnaskedEngine, ...] = ()
    missing_checkouts: tuple[str, ...] = ()
    unmounted_reason: str = ""
    is_engine_in_use: bool = False
    other_engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class CleanupPlan:
    """A cleanup: objects to remove, and own objects that are kept.

    Objects `used_by_others` are used by the named container, which is not ours: removing them would fail or break it.
    """

    level: Level
    facts: CleanupFacts
    objects: tuple[OwnedObject, ...]
    live_objects: tuple[OwnedObject, ...]
    shared_images: tuple[OwnedObject, ...]
    used_by_others: Mapping[OwnedObject, str]
    temporary_files: tuple[Path, ...]
    prune_cache: bool
    stop_sandboxes: tuple[Path, ...]
    purge_sandboxes: tuple[Path, ...]

    @property
    def removes_state(self) -> bool:
        """Whether `.lyra/`, evidence and the private engine's data are removed."""
        return self.level == "all"

    @property
    def kept_reason(self) -> str:
        """Why the state directories of a missing checkout are kept, or ''."""
        if self.facts.is_engine_in_use:
            return "this project uses its private engine"
        engines = ", ".join(self.facts.other_engines)
        return f"it may have objects in engines that cannot be searched from here: {engines}" if engines else ""

    @property
    def deletes_states(self) -> bool:
        """Whether the state directories of a missing checkout are deleted."""
        return self.level == "gone" and not self.kept_reason

    @property
    def unasked_engines(self) -> tuple[UnaskedEngine, ...]:
        """Engines that may hold objects after this cleanup, since neither they are asked nor their data removed."""
        return tuple(item for item in self.facts.unasked_engines if item.private_state not in self.purge_sandboxes)

    @property
    def unknown_objects(self) -> tuple[EngineObject, ...]:
        """Objects with the checkout's label that its journal does not know: it was deleted, or the label copied."""
        owned = {(item.kind, item.id) for item in self.facts.owned}
        labelled = (item for item in self.facts.engine_objects if item.project == self.facts.project_id != "")
        return tuple(item for item in labelled if (item.kind, item.id) not in owned)

    @property
    def unknown_images(self) -> tuple[str, ...]:
        """References of images built for a project of this name that the journal does not know."""
        prefix, owned = f"{self.facts.project_id.rpartition('-')[0]}/", {item.name for item in self.facts.owned}
        images = (item for item in self.facts.engine_objects if item.kind == IMAGE and item.title.startswith(prefix))
        return tuple(image.name for image in images if image.name.startswith(prefix) and image.name not in owned)

    @property
    def is_complete(self) -> bool:
        """Whether no object journaled so far can be in the engine, or still appear there, after this cleanup."""
        facts = self.facts
        is_incomplete = self.live_objects or self.used_by_others or facts.live_runs or facts.crashed_runs
        return not (is_incomplete or facts.has_recent_build)

    @property
    def crashed_objects(self) -> tuple[OwnedObject, ...]:
        """Objects to remove that were left by killed runs."""
        return tuple(item for item in self.objects if item.run in self.facts.crashed_runs)

    @property
    def kept_objects(self) -> dict[OwnedObject, str]:
        """Our objects that are kept, with the reason."""
        reasons = dict.fromkeys(self.live_objects, "another process is using it for an active run")
        reasons |= {item: f"also created by checkout {self.facts.shared_images[item]}" for item in self.shared_images}
        return reasons | {item: foreign_use(user) for item, user in self.used_by_others.items()}

    @property
    def parts(self) -> list[str]:
        """Describe the scope of the cleanup."""
        counts = Counter(item.kind for item in self.objects)
        parts = [f"{counts[kind]} {kind}(s)" for kind in KINDS if counts[kind]]
        if self.temporary_files:
            parts.append(f"{len(self.temporary_files)} temporary file(s)")
        if self.prune_cache:
            parts.append("the build cache")
        if self.stop_sandboxes:
            parts.append("its private engine with its data" if self.level == "gone" else "the private engine")
        if self.removes_state:
            parts += [".lyra/", "the evidence of test runs"]
            parts += ["the private engine's data"] if self.purge_sandboxes else []
        if self.deletes_states:
            parts.append("its journal, records and evidence")
        return parts


def record_unasked_engines(plan: CleanupPlan) -> list[UnaskedEngineRecord]:
    """Return the records of the engines that a cleanup does not ask."""
    return [
        UnaskedEngineRecord(
            engine=item.id, endpoint=item.endpoint, reason=item.reason, objects=item.object_count, fix=item.fix
        )
        for item in plan.unasked_engines
    ]


def foreign_use(user: str) -> str:
    """Return the reason for an object that container `user` of somebody else keeps in use."""
    return f"in use by container {user}, which is not ours"


def plan_cleanup(facts: CleanupFacts, level: Level) -> CleanupPlan:
    """Plan the cleanup of one checkout; bundles, journal, image records and sources are always kept.

    Objects of active runs are kept, and with them all images, since such a run may need any of them. Raises LockedError
    if everything shall be removed, but a run is active.
    """
    if level == "all" and facts.live_runs:
        raise LockedError(f"{describe_active_runs(facts.live_runs)}: `--all` would break it", hint=WAIT_HINT)
    stop_sandboxes, purge_sandboxes = facts.auto_started_sandboxes, tuple[Path, ...]()
    if level == "all":
        stop_sandboxes, purge_sandboxes = facts.running_sandboxes, facts.sandboxes_with_data
    elif level == "gone" and not facts.is_engine_in_use:
        stop_sandboxes = tuple(dict.fromkeys([*facts.running_sandboxes, *facts.sandboxes_with_data]))
        purge_sandboxes = stop_sandboxes
    live_objects = {
        item for item in facts.owned if facts.live_runs and (item.run in facts.live_runs or item.kind == IMAGE)
    }
    shared_images = set(facts.shared_images) - live_objects
    candidates = tuple(item for item in facts.owned if item not in live_objects and item not in shared_images)
    used_by_others = _find_used_by_others(facts.engine_objects, candidates)
    return CleanupPlan(
        level=level,
        facts=facts,
        objects=tuple(item for item in candidates if item not in used_by_others),
        live_objects=tuple(item for item in facts.owned if item in live_objects),
        shared_images=tuple(item for item in facts.owned if item in shared_images),
        used_by_others=used_by_others,
        temporary_files=() if facts.live_runs else facts.temporary_files,
        prune_cache=level in {"cache", "all"} and facts.owns_builder and not facts.live_runs,
        stop_sandboxes=() if facts.live_runs else tuple(dict.fromkeys([*stop_sandboxes, *facts.stray_sandboxes])),
        purge_sandboxes=purge_sandboxes,
    )


def plan_gone_cleanup(checkouts: Iterable[CleanupFacts]) -> list[CleanupPlan]:
    """Plan the cleanup of all missing checkouts but those with an active run."""
    return [plan_cleanup(facts, "gone") for facts in checkouts if not facts.live_runs]


def require_no_active_runs(plan: CleanupPlan) -> None:
    """Raise LockedError, after the cleanup, if objects were kept for an active run."""
    if plan.live_objects:
        kept = f"{len(plan.live_objects)} object(s) kept for it, everything else removed"
        raise LockedError(f"{describe_active_runs(plan.facts.live_runs)}: {kept}", hint=WAIT_HINT)


def describe_active_runs(live_runs: Mapping[str, int]) -> str:
    """Return the beginning of a message about active runs, with their pids."""
    pids = ", ".join(f"pid {pid}" for pid in live_runs.values())
    return f"A run of this checkout is active in another process ({pids})"


def _find_used_by_others(
    engine_objects: tuple[EngineObject, ...], candidates: tuple[OwnedObject, ...]
) -> dict[OwnedObject, str]:
    """Return the candidates that other containers use, with the name of one such container.

    Removing one of several references of an image is always possible.
    """
    leaving_ids = {item.id for item in candidates if item.kind == CONTAINER}
    users: dict[tuple[str, str], str] = {}
    for engine_object in engine_objects:
        if engine_object.kind == CONTAINER and engine_object.id not in leaving_ids:
            users |= dict.fromkeys(engine_object.uses, engine_object.name)
    names = {item.name for item in candidates if item.kind == IMAGE}
    otherwise_named_ids = {image.id for image in engine_objects if image.kind == IMAGE and image.name not in names}
    used_by_others = {}
    for item in candidates:
        if item.kind == CONTAINER or (item.kind == IMAGE and item.id in otherwise_named_ids):
            continue
        user = users.get((item.kind, item.id if item.kind == IMAGE else item.name))
        if user is None and item.kind == NETWORK:
            user = users.get((NETWORK, item.id))
        if user is not None:
            used_by_others[item] = user
    return used_by_others
