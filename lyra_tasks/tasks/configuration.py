"""`config.*`: the effective configuration, and what it may be."""

from __future__ import annotations

from json import dumps
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
    return console.table(("key", "from", "value"), [(row.key, row.origin, _text(row.value)) for row in rows])


@word("schema")
def schema(c: Any) -> None:
    """The JSON Schema of .lyra.toml, with which editors complete and check it."""
    from lyra_tasks.config.schema import schema

    console.document(schema())


def _text(value: object) -> str:
    """A value in a column: words as they are, anything else as JSON writes it."""
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)
