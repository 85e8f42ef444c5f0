"""What `build` and `bases.*` show."""

from __future__ import annotations

import json

from lyra_tasks import console
from lyra_tasks.build.plan import BuildPlan
from lyra_tasks.build.run import Built, definition_text
from lyra_tasks.engine.bases import Resolution


def planned(plan: BuildPlan) -> None:
    """The bake definition that would be run, on stdout."""
    text = definition_text(plan)
    if console.is_json():
        return console.document(json.loads(text))
    console.say(text.rstrip())
    return None


def built(images: tuple[Built, ...]) -> None:
    """A line per image: reference, digest, size, and whether it is another one than before."""
    if console.is_json():
        return console.document(
            {"images": {each.key: each.record.model_dump(mode="json") | {"new": each.changed} for each in images}}
        )
    for each in images:
        record = each.record
        state = console.style("new", "green") if each.changed else "unchanged"
        digest = record.config_digest[:19]
        console.say(f"{record.reference}  {digest}  {console.size(record.size)}  {state}")
    return None


def bases(resolution: Resolution) -> None:
    """A line per base: where it comes from and what it is pinned to."""
    console.table(
        ("base", "source", "pinned to"),
        [(key, base.locked.source, base.digest[:19]) for key, base in sorted(resolution.bases.items())],
    )
