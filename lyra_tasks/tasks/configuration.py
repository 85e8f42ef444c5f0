"""`config.*`: the effective configuration."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import line_flags, word


@word("show")
def show(c: Any, json: bool = False) -> None:
    """The effective values, and where each came from."""
    from lyra_tasks.config.show import effective

    rows = effective(workspace().loaded)
    if "--json" in line_flags():
        return console.document([{"key": row.key, "value": row.value, "from": row.origin} for row in rows])
    return console.table(("key", "value", "from"), [(row.key, row.value, row.origin) for row in rows])
