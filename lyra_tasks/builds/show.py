"""Show the results of `build` and `bases.*`."""

from __future__ import annotations

import json

from pydantic import Field

from lyra_tasks import console
from lyra_tasks.builds.plan import BuildPlan
from lyra_tasks.builds.run import BuildResult, render_bake_definition
from lyra_tasks.engine.bases.resolve import BaseResolution
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.results.engine import PinnedBase, PinnedBases
from lyra_tasks.results.lifecycle import BakeDefinition, BuiltImages


class BuiltImage(ImageRecord):
    """The record of an image that `build` has built."""

    new: bool = Field(description="whether it differs from the previous build")


def show_build_plan(plan: BuildPlan) -> BakeDefinition:
    """Show the bake definition of a dry run."""
    text = render_bake_definition(plan)
    definition = BakeDefinition(**json.loads(text))
    if not console.print_result(definition):
        console.print_verbatim(text.rstrip())
    return definition


def show_build_results(results: tuple[BuildResult, ...]) -> BuiltImages:
    """Show reference, digest and size of each image, and whether it changed."""
    built = BuiltImages({result.key: BuiltImage(**dict(result.record), new=result.is_new) for result in results})
    if not console.print_result(built):
        for image in built.images.values():
            state = console.style("new", "green") if image.new else "unchanged"
            size = console.format_bytes(image.size)
            console.print(f"{image.reference}  {image.config_digest[:19]}  {size}  {state}")
    return built


def show_bases(resolution: BaseResolution) -> PinnedBases:
    """Show the source and pinned digest of each base."""
    bases = PinnedBases(
        {key: PinnedBase(base.pin.source, base.digest) for key, base in sorted(resolution.bases.items())}
    )
    if not console.print_result(bases):
        rows = [(key, base.source, base.digest[:19]) for key, base in bases.bases.items()]
        console.print_table(("base", "source", "digest"), rows)
    return bases
