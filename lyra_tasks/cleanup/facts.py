"""What there is to clean, found out."""

from __future__ import annotations

from lyra_tasks.cleanup.plan import CleanPlan, plan
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.connect import Engine, connect_existing
from lyra_tasks.engine.ownership import owned
from lyra_tasks.engine.workspace import Workspace


def gather(work: Workspace, *, everything: bool) -> tuple[CleanPlan, Engine | None]:
    """The cleaning plan, and the engine it is for: None if there is none that could hold anything of ours."""
    by_itself = work.started_sandbox_itself()
    was_running = sandbox.find(work.paths.state) is not None
    engine = connect_existing(work.config, work.paths)
    objects = owned(engine, work.journal.entries()) if engine is not None else []
    sandboxed = engine is not None and engine.facts.sandboxed
    stop = sandboxed and (by_itself or not was_running or everything)
    return plan(objects, sandbox_running=stop, everything=everything), engine
