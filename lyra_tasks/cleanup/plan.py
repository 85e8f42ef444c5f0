"""What `clean` will remove: what is ours by label and journal together, and the engine that Lyra started itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lyra_tasks.engine.claims import Claims, Owned
from lyra_tasks.engine.space import Figures
from lyra_tasks.engine.things import CONTAINER, IMAGE, KINDS, NETWORK, Thing
from lyra_tasks.errors import LockedError

Level = Literal["objects", "cache", "all"]


@dataclass(frozen=True)
class CleanFacts:
    """What there is, found out.

    `owned` is what of the `things` the `claims` make ours. `live` are the runs of other terminals and their processes,
    `crashed` those that were killed, `unfinished` is whether a build did not end, and `lately` whether that was just
    now. `shared` are image references that another checkout made as well, and which one. `states` are the state folders
    of this checkout, one for each name that the project had; `sandboxes` those whose engine runs, `by_itself` those
    whose engine a word started, `with_data` those that have an engine's data.
    """

    things: tuple[Thing, ...] = ()
    owned: tuple[Owned, ...] = ()
    claims: Claims = field(default_factory=Claims)
    live: Mapping[str, int] = field(default_factory=dict)
    crashed: frozenset[str] = frozenset()
    unfinished: bool = False
    lately: bool = False
    shared: Mapping[Owned, str] = field(default_factory=dict)
    temporary: tuple[Path, ...] = ()
    figures: Figures | None = None
    owns_builder: bool = False
    sandboxes: tuple[Path, ...] = ()
    by_itself: tuple[Path, ...] = ()
    states: tuple[Path, ...] = ()
    with_data: tuple[Path, ...] = ()


@dataclass(frozen=True)
class CleanPlan:
    """What goes, and what stays although it is ours, with the reason.

    `held` is what a container that is not ours uses: the engine would refuse it, or break that container.
    """

    level: Level
    facts: CleanFacts
    objects: tuple[Owned, ...]
    live: tuple[Owned, ...]
    shared: tuple[Owned, ...]
    held: Mapping[Owned, str]
    temporary: tuple[Path, ...]
    prune_cache: bool
    stop: tuple[Path, ...]
    purge: tuple[Path, ...]

    @property
    def forget(self) -> bool:
        """Whether `.lyra/` and the sandbox's data go."""
        return self.level == "all"

    @property
    def clears(self) -> bool:
        """Whether, with all of it gone, nothing that was claimed so far is in the engine, or may still come there."""
        return not (self.live or self.held or self.facts.live or self.facts.crashed or self.facts.lately)

    @property
    def crashed(self) -> tuple[Owned, ...]:
        """The objects that runs left which were killed."""
        return tuple(each for each in self.objects if each.run in self.facts.crashed)

    @property
    def stays(self) -> dict[Owned, str]:
        """What is ours and stays, and why."""
        reasons = dict.fromkeys(self.live, "a run of another process is going on")
        reasons |= {each: f"the checkout {self.facts.shared[each]} made it, too" for each in self.shared}
        return reasons | {each: f"the container {user} uses it, which is not ours" for each, user in self.held.items()}

    @property
    def summary(self) -> str:
        """What goes, in a line."""
        counted = Counter(each.kind for each in self.objects)
        parts = [f"{counted[kind]} {kind}(s)" for kind in KINDS if counted[kind]]
        if self.temporary:
            parts.append(f"{len(self.temporary)} temporary file(s)")
        if self.prune_cache:
            parts.append("the builder cache")
        if self.stop:
            parts.append("the sandbox engine")
        if self.forget:
            parts.append(".lyra/ and the sandbox's data" if self.purge else ".lyra/")
        return ", ".join(parts) or "nothing"


def plan(facts: CleanFacts, level: Level) -> CleanPlan:
    """Plan the cleaning of one checkout; bundles, journal, records and sources always stay.

    What a run of another terminal made stays, and with it all images, since that run may need any of them. LockedError
    if everything is to go while there is such a run.
    """
    if level == "all" and facts.live:
        raise LockedError(f"{going_on(facts.live)}, and `--all` would take everything from it", hint=_WAIT)
    live = {each for each in facts.owned if facts.live and (each.run in facts.live or each.kind == IMAGE)}
    shared = set(facts.shared) - live
    chosen = tuple(each for each in facts.owned if each not in live and each not in shared)
    held = _held(facts.things, chosen)
    return CleanPlan(
        level=level,
        facts=facts,
        objects=tuple(each for each in chosen if each not in held),
        live=tuple(each for each in facts.owned if each in live),
        shared=tuple(each for each in facts.owned if each in shared),
        held=held,
        temporary=() if facts.live else facts.temporary,
        prune_cache=level != "objects" and facts.owns_builder and not facts.live,
        stop=() if facts.live else facts.sandboxes if level == "all" else facts.by_itself,
        purge=facts.with_data if level == "all" else (),
    )


_WAIT = "wait until it has ended, or end it, then run `clean` again"


def require_nobody(plan: CleanPlan) -> None:
    """LockedError, after everything else was cleaned, if something had to stay for a run of another terminal."""
    if plan.live:
        raise LockedError(
            f"{going_on(plan.facts.live)}: {len(plan.live)} object(s) stay for it, all else is clean", hint=_WAIT
        )


def require_as_planned(facts: CleanFacts, live: Mapping[str, int]) -> None:
    """LockedError if one of the runs that go on now began after the facts were found: the plan takes it for ended."""
    if new := {run: pid for run, pid in live.items() if run not in facts.live}:
        raise LockedError(f"{going_on(new)}, which has begun meanwhile; what it may need stays", hint=_WAIT)


def going_on(live: Mapping[str, int]) -> str:
    """The runs of other terminals, as a sentence's beginning."""
    return (
        "a run of this checkout is going on in another process ("
        + ", ".join(f"pid {pid}" for pid in live.values())
        + ")"
    )


def _held(things: tuple[Thing, ...], going: tuple[Owned, ...]) -> dict[Owned, str]:
    """What containers that stay hold on to, and the name of one of them.

    A reference to an image goes as long as the image keeps another one.
    """
    leaving = {each.id for each in going if each.kind == CONTAINER}
    users: dict[tuple[str, str], str] = {}
    for thing in things:
        if thing.kind == CONTAINER and thing.id not in leaving:
            users |= dict.fromkeys(thing.uses, thing.name)
    names = {each.name for each in going if each.kind == IMAGE}
    elsewhere = {each.id for each in things if each.kind == IMAGE and each.name not in names}
    held = {}
    for each in going:
        if each.kind == CONTAINER or (each.kind == IMAGE and each.id in elsewhere):
            continue
        user = users.get((each.kind, each.id if each.kind == IMAGE else each.name))
        if user is None and each.kind == NETWORK:
            user = users.get((NETWORK, each.id))
        if user is not None:
            held[each] = user
    return held
