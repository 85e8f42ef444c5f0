"""What `clean` will remove: what is ours by label and journal together, and the engine that Lyra started itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lyra_tasks.engine.objects.disk_usage import DiskUsage
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, KINDS, NETWORK, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex
from lyra_tasks.errors import LockedError

Level = Literal["objects", "cache", "all"]


@dataclass(frozen=True)
class CleanupFacts:
    """What there is, found out.

    `owned` is what of the `things` the `claims` make ours. `live` are the runs of other terminals and their processes,
    `crashed` those that were killed, `unfinished` is whether a build did not end, and `lately` whether that was just
    now. `shared` are image references that another checkout made as well, and which one. `states` are the state folders
    of this checkout, one for each name that the project had; `sandboxes` those whose engine runs, `by_itself` those
    whose engine a word started, `with_data` those that have an engine's data.
    """

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
    states: tuple[Path, ...] = ()
    sandboxes_with_data: tuple[Path, ...] = ()


@dataclass(frozen=True)
class CleanupPlan:
    """What goes, and what stays although it is ours, with the reason.

    `held` is what a container that is not ours uses: the engine would refuse it, or break that container.
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
        """Whether `.lyra/` and the sandbox's data go."""
        return self.level == "all"

    @property
    def is_complete(self) -> bool:
        """Whether, with all of it gone, nothing that was claimed so far is in the engine, or may still come there."""
        return not (
            self.live_objects
            or self.used_by_others
            or self.facts.live_runs
            or self.facts.crashed_runs
            or self.facts.has_recent_build
        )

    @property
    def crashed_objects(self) -> tuple[OwnedObject, ...]:
        """The objects that runs left which were killed."""
        return tuple(item for item in self.objects if item.run in self.facts.crashed_runs)

    @property
    def kept_objects(self) -> dict[OwnedObject, str]:
        """What is ours and stays, and why."""
        reasons = dict.fromkeys(self.live_objects, "a run of another process is going on")
        reasons |= {item: f"the checkout {self.facts.shared_images[item]} made it, too" for item in self.shared_images}
        return reasons | {
            item: f"the container {user} uses it, which is not ours" for item, user in self.used_by_others.items()
        }

    @property
    def summary(self) -> str:
        """What goes, in a line."""
        counts = Counter(item.kind for item in self.objects)
        parts = [f"{counts[kind]} {kind}(s)" for kind in KINDS if counts[kind]]
        if self.temporary_files:
            parts.append(f"{len(self.temporary_files)} temporary file(s)")
        if self.prune_cache:
            parts.append("the builder cache")
        if self.stop_sandboxes:
            parts.append("the sandbox engine")
        if self.removes_state:
            parts.append(".lyra/ and the sandbox's data" if self.purge_sandboxes else ".lyra/")
        return ", ".join(parts) or "nothing"


def plan_cleanup(facts: CleanupFacts, level: Level) -> CleanupPlan:
    """Plan the cleaning of one checkout; bundles, journal, records and sources always stay.

    What a run of another terminal made stays, and with it all images, since that run may need any of them. LockedError
    if everything is to go while there is such a run.
    """
    if level == "all" and facts.live_runs:
        raise LockedError(
            f"{describe_active_runs(facts.live_runs)}, and `--all` would take everything from it", hint=_WAIT_HINT
        )
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
        prune_cache=level != "objects" and facts.owns_builder and not facts.live_runs,
        stop_sandboxes=()
        if facts.live_runs
        else facts.running_sandboxes
        if level == "all"
        else facts.auto_started_sandboxes,
        purge_sandboxes=facts.sandboxes_with_data if level == "all" else (),
    )


_WAIT_HINT = "wait until it has ended, or end it, then run `clean` again"


def require_no_active_runs(plan: CleanupPlan) -> None:
    """LockedError, after everything else was cleaned, if something had to stay for a run of another terminal."""
    if plan.live_objects:
        raise LockedError(
            f"{describe_active_runs(plan.facts.live_runs)}: {len(plan.live_objects)} object(s) stay for it, all else is clean",
            hint=_WAIT_HINT,
        )


def require_no_new_runs(facts: CleanupFacts, live_runs: Mapping[str, int]) -> None:
    """LockedError if one of the runs that go on now began after the facts were found: the plan takes it for ended."""
    if new_runs := {run: pid for run, pid in live_runs.items() if run not in facts.live_runs}:
        raise LockedError(
            f"{describe_active_runs(new_runs)}, which has begun meanwhile; what it may need stays", hint=_WAIT_HINT
        )


def describe_active_runs(live_runs: Mapping[str, int]) -> str:
    """The runs of other terminals, as a sentence's beginning."""
    return (
        "a run of this checkout is going on in another process ("
        + ", ".join(f"pid {pid}" for pid in live_runs.values())
        + ")"
    )


def _find_used_by_others(
    engine_objects: tuple[EngineObject, ...], candidates: tuple[OwnedObject, ...]
) -> dict[OwnedObject, str]:
    """What containers that stay hold on to, and the name of one of them.

    A reference to an image goes as long as the image keeps another one.
    """
    leaving_ids = {item.id for item in candidates if item.kind == CONTAINER}
    users: dict[tuple[str, str], str] = {}
    for engine_object in engine_objects:
        if engine_object.kind == CONTAINER and engine_object.id not in leaving_ids:
            users |= dict.fromkeys(engine_object.uses, engine_object.name)
    names = {item.name for item in candidates if item.kind == IMAGE}
    otherwise_named_ids = {
        engine_object.id
        for engine_object in engine_objects
        if engine_object.kind == IMAGE and engine_object.name not in names
    }
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


@dataclass(frozen=True)
class GoneCheckout:
    """One such checkout; `root` is where it was.

    `doubt` says why its folder may only be out of reach. Its own engine is `in_use` if it is the one that this project
    uses, and `elsewhere` are engines that its journal names and that cannot be looked into from here.
    """

    root: Path
    project_id: str
    unmounted_reason: str
    facts: CleanupFacts
    is_engine_in_use: bool = False
    other_engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoneFacts:
    """All of them, and what this project's engine holds."""

    checkouts: tuple[GoneCheckout, ...]
    engine_objects: tuple[EngineObject, ...] = ()
    disk_usage: DiskUsage | None = None


@dataclass(frozen=True)
class CheckoutCleanup:
    """What is removed of one of them. Its state folders go, and the journal with them, unless `keeps` says why not."""

    checkout: GoneCheckout
    plan: CleanupPlan
    kept_reason: str

    @property
    def ended_sandboxes(self) -> tuple[Path, ...]:
        """The state folders whose engine is ended, and its data deleted."""
        facts = self.checkout.facts
        return (
            ()
            if self.checkout.is_engine_in_use
            else tuple(dict.fromkeys([*facts.running_sandboxes, *facts.sandboxes_with_data]))
        )

    @property
    def parts(self) -> Iterator[str]:
        """What goes, in words."""
        if self.plan.objects:
            yield self.plan.summary
        if self.ended_sandboxes:
            yield "its private engine with its data"
        if not self.kept_reason:
            yield "its journal, records and evidence"


@dataclass(frozen=True)
class GonePlan:
    """What is cleaned, and what is not since a run is going on in it: by folder, in words."""

    facts: GoneFacts
    cleanups: tuple[CheckoutCleanup, ...]
    live_checkouts: tuple[tuple[GoneCheckout, str], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(tuple(cleanup.parts) for cleanup in self.cleanups)


def plan_gone_cleanup(facts: GoneFacts) -> GonePlan:
    """Plan the cleaning of all checkouts that are gone; what a run of one of them is going on in is left alone."""
    idle = [checkout for checkout in facts.checkouts if not checkout.facts.live_runs]
    return GonePlan(
        facts=facts,
        cleanups=tuple(
            CheckoutCleanup(checkout, plan_cleanup(checkout.facts, "objects"), _kept_reason(checkout))
            for checkout in idle
        ),
        live_checkouts=tuple(
            (checkout, describe_active_runs(checkout.facts.live_runs))
            for checkout in facts.checkouts
            if checkout.facts.live_runs
        ),
    )


def _kept_reason(checkout: GoneCheckout) -> str:
    if checkout.is_engine_in_use:
        return "this project uses its private engine"
    if checkout.other_engines:
        return (
            f"it may have made something in an engine that is not this project's ({', '.join(checkout.other_engines)})"
        )
    return ""
