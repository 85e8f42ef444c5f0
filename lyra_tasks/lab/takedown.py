"""Taking away what a run made: a lab, one of its groups, or what is left of either."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lyra_tasks.engine.ownership import Owned, Owner, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.errors import ResidueError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_TRIES = 3
_BETWEEN = 0.25  # seconds, more with each


def remove_run(engine: Engine, owner: Owner, prefix: str = "") -> None:
    """Remove every object of a run whose name begins with `prefix`.

    ResidueError names what the engine would not give back.
    """
    left: dict[Owned, str] = {}
    for again in range(_TRIES):
        every = owned(engine, owner.journal.entries(), run=owner.run)
        found = [each for each in every if each.name.startswith(prefix)]
        if not found:
            return
        # somebody else, such as `clean`, may be removing the same object just now
        time.sleep(_BETWEEN * again)
        gone, left = remove(engine, found)
        owner.removed(engine, gone)
    if left:
        raise ResidueError(
            f"{len(left)} object(s) of this run could not be removed",
            hint="run `clean`",
            details=tuple(f"{item.kind} {item.name}: {reason}" for item, reason in left.items()),
        )
