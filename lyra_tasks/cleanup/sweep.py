"""Removing what a plan lists and what appears meanwhile, until nothing is found any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.cleanup.proof import residue_of
from lyra_tasks.engine.claims import Owned
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.remove import removal
from lyra_tasks.engine.things import Thing, everything
from lyra_tasks.records.cleanup import Residue

_SCANS = 8
_BETWEEN = 0.25  # seconds, more with each scan: the engine may be busy with the same object for somebody else


def sweep(
    plan: CleanPlan, owner: Owner, live: Callable[[], Container[str]], engine: Engine, removed: list[Owned]
) -> tuple[tuple[Thing, ...], list[Residue]]:
    """What the engine holds at the end, and what of it is residue; `removed` grows, also if this ends early.

    `owner` journals what is gone, and `live` says which runs of other processes are going on now.
    """
    todo, things, reasons = list(plan.objects), plan.facts.things, dict(plan.held)
    mine = plan.facts.claims  # what is claimed since belongs to a run that is going on
    spared = {*plan.live, *plan.shared, *plan.held}
    # where something was killed, the engine may still be making what it was asked for
    empty, enough = 0, 2 if plan.facts.unfinished or plan.facts.crashed else 1
    for scan in range(_SCANS):
        if todo:
            done = removal(engine, todo, things)
            owner.removed(engine, done.gone)
            removed += done.gone
            reasons |= done.left
            if done.fault is not None:
                raise done.fault
            if done.left:
                time.sleep(_BETWEEN * (scan + 1))
        things = everything(engine)
        ours = [each for thing in things if (each := mine.of(thing)) is not None and each not in spared]
        going_on = live() if ours else ()
        todo = [each for each in ours if each.run not in going_on]
        empty = 0 if todo else empty + 1
        if empty == enough:
            break
    still = {*plan.held, *todo} & {each for thing in things if (each := mine.of(thing)) is not None}
    return things, [residue_of(each, plan.held.get(each), reasons.get(each, "")) for each in sorted(still, key=_order)]


def _order(item: Owned) -> tuple[str, str]:
    return item.kind, item.name
