"""`init`: a configuration written from what the repository has."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.word import dry, word


@word("init")
def init(c: Any, dry_run: bool = False, json: bool = False) -> None:
    """Write a commented .lyra.toml and a tasks.py from Dockerfiles and a compose file; never overwrites."""
    from pathlib import Path

    from lyra_tasks.setup import facts, plan, run, show

    root = Path.cwd()
    planned = plan.plan(facts.gather(root))
    if dry(c):
        return show.planned(planned)
    return show.written(planned, run.run(planned, root))
