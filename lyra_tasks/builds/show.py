"""Print the output of `build` and `bases.*`."""

from __future__ import annotations

import json

from lyra_tasks import console
from lyra_tasks.builds.plan import BuildPlan
from lyra_tasks.builds.run import BuildResult, render_bake_definition
from lyra_tasks.engine.bases.resolve import BaseResolution


def print_build_plan(plan: BuildPlan) -> None:
    """Print the bake definition of a dry run."""
    text = render_bake_definition(plan)
    if console.is_json_mode():
        console.print_json(json.loads(text))
    else:
        console.print_verbatim(text.rstrip())


def print_build_results(results: tuple[BuildResult, ...]) -> None:
    """Print reference, digest and size of each image, and whether it changed."""
    if console.is_json_mode():
        images = {result.key: result.record.model_dump(mode="json") | {"new": result.is_new} for result in results}
        return console.print_json({"images": images})
    for result in results:
        record = result.record
        state = console.style("new", "green") if result.is_new else "unchanged"
        digest = record.config_digest[:19]
        console.print(f"{record.reference}  {digest}  {console.format_bytes(record.size)}  {state}")
    return None


def print_bases(resolution: BaseResolution) -> None:
    """Print the source and pinned digest of each base."""
    console.print_table(
        ("base", "source", "digest"),
        [(key, base.pin.source, base.digest[:19]) for key, base in sorted(resolution.bases.items())],
    )
