"""Running a cleaning plan, and the proof at its end."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.ownership import Owned, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.errors import ResidueError
from lyra_tasks.records.dev import DevStore

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_SCANS = 5


@dataclass(frozen=True)
class Cleaned:
    """What was removed; `proved` is whether the engine was asked again afterwards."""

    removed: tuple[Owned, ...]
    sandbox_stopped: bool
    forgotten: bool
    proved: bool


def run(plan: CleanPlan, work: Workspace, engine: Engine | None) -> Cleaned:
    """Remove what `plan` lists and what appears meanwhile, until two scans find nothing; then stop the sandbox.

    ResidueError names what the engine would not give back.
    """
    removed: list[Owned] = []
    if engine is not None:
        removed = _sweep(work, engine, plan.objects)
    DevStore(work.paths.state).forget()
    if plan.stop_sandbox or plan.forget:
        sandbox.require_nothing_left(sandbox.down(work.paths.state, purge=plan.forget))
    if plan.forget:
        shutil.rmtree(work.paths.work, ignore_errors=True)
    return Cleaned(tuple(removed), plan.stop_sandbox, plan.forget, engine is not None)


def _sweep(work: Workspace, engine: Engine, objects: tuple[Owned, ...]) -> list[Owned]:
    removed: list[Owned] = []
    found, left = list(objects), dict[Owned, str]()
    empty = 0
    for _ in range(_SCANS):
        if found:
            gone, left = remove(engine, found)
            work.owner.removed(gone)
            removed += gone
        found = owned(engine, work.journal.entries())
        empty = empty + 1 if not found else 0
        if empty == 2:
            return removed
    raise ResidueError(
        f"{len(found)} object(s) of this project are left",
        hint="remove them by hand, then run `clean` again",
        details=tuple(f"{each.kind} {each.name}: {left.get(each, 'still there')}" for each in found),
    )
