"""Running a cleaning plan, and the proof at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.cleanup import temporary
from lyra_tasks.cleanup.plan import CleanPlan, require_as_planned
from lyra_tasks.cleanup.proof import Beginning, deleted, inventory, kept, require_clean
from lyra_tasks.cleanup.sweep import sweep
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.claims import Owned
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.guard import forget_crashed
from lyra_tasks.engine.space import figures, shrink_cache
from lyra_tasks.engine.traces import reapers, traces
from lyra_tasks.errors import NoSpaceError, is_full
from lyra_tasks.records.cleanup import FILE, CleanupProof, Residue
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.store import write_record

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

__all__ = ["keep", "require_clean", "run"]

ANSWER = 60  # seconds; an engine that has not removed a container by then hangs
_REAPERS = 5.0  # seconds that reapers of killed runs have to see that nothing is left for them


def run(plan: CleanPlan, work: Workspace, engine: Engine | None) -> CleanupProof:
    """Remove what `plan` lists and what appears meanwhile, until a scan finds nothing (after a killed run: two); then
    stop the sandbox.

    What is left is in the proof; an engine that stops answering is an EngineUnavailableError, a run that began since
    this was planned a LockedError, and the next `clean` goes on where this one ended.
    """
    require_as_planned(plan.facts, work.live_elsewhere())  # somebody may have thought about the answer for long
    states = plan.facts.states
    before = inventory(plan.facts.things, plan.facts.figures, traces(states, work.paths.work), plan.facts.temporary)
    begun = Beginning(work.run, plan.level, engine, plan.facts.things)
    removed: list[Owned] = []
    things, space, residue = plan.facts.things, None, []
    if engine is not None:
        engine.api.timeout = ANSWER
        things, found = sweep(plan, work.owner, work.live_elsewhere, engine, removed)
        residue = found
        work.owner.released(engine, plan.shared)
        shrink_cache(engine, 0 if plan.prune_cache else work.config.resources.cache)
        space = figures(engine)
    require_as_planned(plan.facts, work.live_elsewhere())
    residue += _outside(plan, work)
    left = traces(states, work.paths.work)
    waiting = tuple(temporary.temporary_files(work.paths, work.bundles))
    if engine is not None and plan.clears and not residue and plan.facts.claims.seen:
        work.owner.cleared(engine, plan.facts.claims.seen)
    after = inventory(things, space, left, waiting)
    if not plan.facts.live:
        residue += [Residue(kind="file", name=str(path), why="still there", remove=f"rm -r {path}") for path in waiting]
    return begun.proof(
        before, after, things,
        removed=removed, kept=kept(plan), residue=residue, stopped=bool(plan.stop), live=bool(plan.live),
    )  # fmt: skip


def keep(proof: CleanupProof, work: Workspace, *, forget: bool = False) -> Path | None:
    """Write the proof into the run's folder, or into the state folder if `.lyra/` goes or has no room.

    None if neither has: who cleans because a disk is full is not to fail by that.
    """
    places: list[Callable[[], Path]] = [lambda: work.folder, lambda: work.paths.state]
    for place in places[1:] if forget else places:
        try:
            file = place() / FILE
            write_record(file, proof)
        except NoSpaceError:
            continue
        except OSError as error:
            if not is_full(error):
                raise
        else:
            return file
    return None


def _outside(plan: CleanPlan, work: Workspace) -> list[Residue]:
    """Take away what is ours outside of the engine's objects; what of it is left."""
    left = []
    temporary.remove(plan.temporary)
    if not plan.facts.live:
        for state in plan.facts.states:
            DevStore(state).forget()
            forget_crashed(state, plan.facts.crashed)
    for state in dict.fromkeys([*plan.stop, *plan.purge]):
        left += engine_ended(state, purge=state in plan.purge)
    if plan.forget:
        left += deleted(work.paths.work)
    return left + reapers_left(plan)


def engine_ended(state: Path, *, purge: bool) -> list[Residue]:
    """End the sandbox engine of a state folder; what of it is left."""
    left = sandbox.down(state, purge=purge).left
    data = [path for path in left if Path(path).is_relative_to(state.resolve())]
    return [
        *(Residue(kind="folder", name=path, why="still there", remove=f"rm -r {path}") for path in data),
        *(
            Residue(kind="control group", name=path, why="the kernel keeps it", remove=f"rmdir {path}")
            for path in left
            if path not in data
        ),
    ]


def reapers_left(plan: CleanPlan) -> list[Residue]:
    """The reapers of killed runs, which end when they see that nothing is left for them to do."""
    deadline = time.monotonic() + _REAPERS
    while not plan.facts.live and (waiting := reapers(plan.facts.states)):
        if time.monotonic() > deadline:
            return [Residue(kind="process", name=str(pid), why="a reaper", remove=f"kill {pid}") for pid in waiting]
        time.sleep(0.05)
    return []
