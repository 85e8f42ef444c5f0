"""Cleaning what is left of checkouts whose folder is not there any more, and the proof at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lyra_tasks.cleanup.gone_plan import GoneClean, GonePlan
from lyra_tasks.cleanup.proof import Beginning, deleted, inventory, kept
from lyra_tasks.cleanup.run import ANSWER, engine_ended, reapers_left
from lyra_tasks.cleanup.sweep import sweep
from lyra_tasks.engine.claims import Owned
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.guard import forget_crashed
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.space import figures
from lyra_tasks.engine.things import everything
from lyra_tasks.engine.traces import traces
from lyra_tasks.records.checkouts import is_gone
from lyra_tasks.records.cleanup import CleanupProof, Forgotten, Residue
from lyra_tasks.records.journal import Journal
from lyra_tasks.run import live_folder, live_runs, locked

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


def run(plan: GonePlan, work: Workspace, engine: Engine | None) -> CleanupProof:
    """Remove what `plan` lists, checkout by checkout; the state folders of one go when nothing else of it is left.

    A folder that is back meanwhile is left alone. What is left is in the proof.
    """
    states = [state for each in plan.cleans for state in each.checkout.facts.states]
    before = inventory(plan.facts.things, plan.facts.figures, traces(states, work.paths.work), ())
    begun = Beginning(work.run, "gone", engine, plan.facts.things)
    removed: list[Owned] = []
    residue: list[Residue] = []
    forgotten: list[Forgotten] = []
    with locked(work.paths.cache / "gone.lock", what="`clean --gone`"):
        cleans = [each for each in plan.cleans if is_gone(each.checkout.root)]
        for each in cleans:
            residue += _clean(each, work, engine, removed)
        things = everything(engine) if engine is not None else ()
        space = figures(engine) if engine is not None else None
        left = {(each.kind, each.name) for each in residue}
        for each in cleans:
            if not each.keeps and not left & {(item.kind, item.name) for item in each.checkout.facts.owned}:
                residue += _forget(each, forgotten)
    if forgotten:
        work.journal.append(work.run, "forgotten", checkouts=[each.model_dump() for each in forgotten])
    after = inventory(things, space, traces([state for state in states if state.is_dir()], work.paths.work), ())
    return begun.proof(
        before, after, things,
        removed=removed, kept=[item for each in cleans for item in kept(each.objects)], residue=residue,
        stopped=any(each.stops for each in cleans), forgotten=forgotten,
    )  # fmt: skip


def _clean(each: GoneClean, work: Workspace, engine: Engine | None, removed: list[Owned]) -> list[Residue]:
    """Remove the objects of one checkout and end its engine; what of it is left."""
    facts, residue = each.checkout.facts, list[Residue]()
    if engine is not None:
        engine.api.timeout = ANSWER
        # in its own journal: what is gone from there is not looked for again, also if this ends in the middle
        owner = Owner(Journal(facts.states[-1] / "journal.jsonl"), work.run, each.checkout.project_id)
        _, residue = sweep(each.objects, owner, lambda: _live(each), engine, removed)
        owner.released(engine, each.objects.shared)
    for state in each.stops:
        residue += engine_ended(state, purge=True)
    for state in facts.states:
        forget_crashed(state, facts.crashed)
    return residue + reapers_left(each.objects)


def _live(each: GoneClean) -> set[str]:
    return {run for state in each.checkout.facts.states for run in live_runs(live_folder(state))}


def _forget(each: GoneClean, forgotten: list[Forgotten]) -> list[Residue]:
    """Delete the state folders of one checkout; what of them is left."""
    residue = []
    for state in each.checkout.facts.states:
        left = deleted(state)
        residue += left
        if not left:
            forgotten.append(Forgotten(root=str(each.checkout.root), state=str(state)))
    return residue
