"""Running a cleaning plan, and the proof at its end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.cleanup import temporary
from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.cleanup.proof import inventory, items, kept, require_clean, residue_of, vanished
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.claims import Owned
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.guard import forget_crashed
from lyra_tasks.engine.remove import removal
from lyra_tasks.engine.space import figures, shrink_cache
from lyra_tasks.engine.things import Thing, everything
from lyra_tasks.engine.traces import reapers, traces
from lyra_tasks.errors import NoSpaceError, is_full
from lyra_tasks.records.cleanup import FILE, CleanupProof, Residue
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.store import write_record

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

__all__ = ["keep", "require_clean", "run"]

_SCANS = 8
_BETWEEN = 0.25  # seconds, more with each scan: the engine may be busy with the same object for somebody else
_ANSWER = 60  # seconds; an engine that has not removed a container by then hangs
_REAPERS = 5.0  # seconds that reapers of killed runs have to see that nothing is left for them


def run(plan: CleanPlan, work: Workspace, engine: Engine | None) -> CleanupProof:
    """Remove what `plan` lists and what appears meanwhile, until a scan finds nothing (after a killed run: two); then
    stop the sandbox.

    What is left is in the proof; an engine that stops answering is an EngineUnavailableError, and the next `clean`
    goes on where this one ended.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    states = plan.facts.states
    seen = traces(states, work.paths.work)
    before = inventory(plan.facts.things, plan.facts.figures, seen, plan.facts.temporary)
    removed: list[Owned] = []
    things, space, residue = plan.facts.things, plan.facts.figures, []
    if engine is not None:
        engine.api.timeout = _ANSWER
        things, found = _sweep(plan, work, engine, removed)
        residue = found
        work.owner.released(engine, plan.shared)
        shrink_cache(engine, 0 if plan.prune_cache else work.config.resources.cache)
        space = figures(engine)
    residue += _outside(plan, work)
    left = traces(states, work.paths.work)
    waiting = tuple(temporary.temporary_files(work.paths, work.bundles))
    after = inventory(things, space, left, waiting)
    if not plan.facts.live:
        residue += [Residue(kind="file", name=str(path), why="still there", remove=f"rm -r {path}") for path in waiting]
    return CleanupProof(
        run=work.run,
        level=plan.level,
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
        engine={"id": engine.facts.id, "version": engine.facts.version} if engine else None,
        before=before,
        after=after,
        removed=items(removed),
        kept=kept(plan),
        residue=residue,
        others_gone=vanished(plan.facts.things, things, removed),
        sandbox_stopped=bool(plan.stop),
        clean=not residue and not plan.live,
    )


def keep(proof: CleanupProof, plan: CleanPlan, work: Workspace) -> Path | None:
    """Write the proof into the run's folder, or into the state folder if `.lyra/` goes or has no room.

    None if neither has: who cleans because a disk is full is not to fail by that.
    """
    places: list[Callable[[], Path]] = [lambda: work.folder, lambda: work.paths.state]
    for place in places[1:] if plan.forget else places:
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


def _sweep(
    plan: CleanPlan, work: Workspace, engine: Engine, removed: list[Owned]
) -> tuple[tuple[Thing, ...], list[Residue]]:
    """What the engine holds at the end, and what of it is residue; `removed` grows, also if this ends early."""
    todo, things, reasons = list(plan.objects), plan.facts.things, dict(plan.held)
    mine = plan.facts.claims  # what is claimed since belongs to a run that is going on
    spared = {*plan.live, *plan.shared, *plan.held}
    # where something was killed, the engine may still be making what it was asked for
    empty, enough = 0, 2 if plan.facts.unfinished or plan.facts.crashed else 1
    for scan in range(_SCANS):
        if todo:
            done = removal(engine, todo, things)
            work.owner.removed(engine, done.gone)
            removed += done.gone
            reasons |= done.left
            if done.fault is not None:
                raise done.fault
            if done.left:
                time.sleep(_BETWEEN * (scan + 1))
        things = everything(engine)
        ours = [each for thing in things if (each := mine.of(thing)) is not None and each not in spared]
        todo = [each for each in ours if each.run not in work.live_elsewhere()]
        empty = 0 if todo else empty + 1
        if empty == enough:
            break
    still = {*plan.held, *todo} & {each for thing in things if (each := mine.of(thing)) is not None}
    return things, [residue_of(each, plan.held.get(each), reasons.get(each, "")) for each in sorted(still, key=_order)]


def _order(item: Owned) -> tuple[str, str]:
    return item.kind, item.name


def _outside(plan: CleanPlan, work: Workspace) -> list[Residue]:
    """Take away what is ours outside of the engine's objects; what of it is left."""
    left = []
    temporary.remove(plan.temporary)
    if not plan.facts.live:
        for state in plan.facts.states:
            DevStore(state).forget()
            forget_crashed(state, plan.facts.crashed)
    for state in dict.fromkeys([*plan.stop, *plan.purge]):
        report = sandbox.down(state, purge=state in plan.purge)
        left += [
            Residue(kind="control group", name=path, why="the kernel keeps it", remove=f"rmdir {path}")
            for path in report.left
        ]
    if plan.forget:
        shutil.rmtree(work.paths.work, ignore_errors=True)
    return left + _reapers_left(plan)


def _reapers_left(plan: CleanPlan) -> list[Residue]:
    """The reapers of killed runs, which end when they see that nothing is left for them to do."""
    deadline = time.monotonic() + _REAPERS
    while not plan.facts.live and (waiting := reapers(plan.facts.states)):
        if time.monotonic() > deadline:
            return [Residue(kind="process", name=str(pid), why="a reaper", remove=f"kill {pid}") for pid in waiting]
        time.sleep(0.05)
    return []
