"""What `clean --gone` will remove: what is left of checkouts whose folder is not there any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.cleanup.plan import CleanFacts, CleanPlan, going_on, plan
from lyra_tasks.engine.space import Figures
from lyra_tasks.engine.things import Thing


@dataclass(frozen=True)
class GoneCheckout:
    """One such checkout; `root` is where it was.

    `doubt` says why its folder may only be out of reach. Its own engine is `in_use` if it is the one that this project
    uses, and `elsewhere` are engines that its journal names and that cannot be looked into from here.
    """

    root: Path
    project_id: str
    doubt: str
    facts: CleanFacts
    in_use: bool = False
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoneFacts:
    """All of them, and what this project's engine holds."""

    checkouts: tuple[GoneCheckout, ...]
    things: tuple[Thing, ...] = ()
    figures: Figures | None = None


@dataclass(frozen=True)
class GoneClean:
    """What is removed of one of them. Its state folders go, and the journal with them, unless `keeps` says why not."""

    checkout: GoneCheckout
    objects: CleanPlan
    keeps: str

    @property
    def stops(self) -> tuple[Path, ...]:
        """The state folders whose engine is ended, and its data deleted."""
        facts = self.checkout.facts
        return () if self.checkout.in_use else tuple(dict.fromkeys([*facts.sandboxes, *facts.with_data]))

    @property
    def parts(self) -> Iterator[str]:
        """What goes, in words."""
        if self.objects.objects:
            yield self.objects.summary
        if self.stops:
            yield "its private engine with its data"
        if not self.keeps:
            yield "its journal, records and evidence"


@dataclass(frozen=True)
class GonePlan:
    """What is cleaned, and what is not since a run is going on in it: by folder, in words."""

    facts: GoneFacts
    cleans: tuple[GoneClean, ...]
    live: tuple[tuple[GoneCheckout, str], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(tuple(each.parts) for each in self.cleans)


def plan_gone(facts: GoneFacts) -> GonePlan:
    """Plan the cleaning of all checkouts that are gone; what a run of one of them is going on in is left alone."""
    idle = [each for each in facts.checkouts if not each.facts.live]
    return GonePlan(
        facts=facts,
        cleans=tuple(GoneClean(each, plan(each.facts, "objects"), _keeps(each)) for each in idle),
        live=tuple((each, going_on(each.facts.live)) for each in facts.checkouts if each.facts.live),
    )


def _keeps(checkout: GoneCheckout) -> str:
    if checkout.in_use:
        return "this project uses its private engine"
    if checkout.elsewhere:
        return f"it may have made something in an engine that is not this project's ({', '.join(checkout.elsewhere)})"
    return ""
