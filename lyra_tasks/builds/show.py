"""Show the results of `build`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import Field

from lyra_tasks import console
from lyra_tasks.builds.plan import BuildPlan
from lyra_tasks.builds.run import BuildResult, render_bake_definition
from lyra_tasks.config.platforms import Variant
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.results.lifecycle import BakeDefinition, BuiltImages


class BuiltImage(ImageRecord):
    """The record of an image that `build` has built."""

    new: bool = Field(description="whether it differs from the previous build")


def show_fetch_plan(work: Workspace, variants: Sequence[Variant]) -> None:
    """Show the third-party images that a build would fetch."""
    for variant in variants:
        console.info(f"would fetch {variant.key}: {work.config.services[variant.image].image}")


def show_build_plan(plan: BuildPlan | None) -> BakeDefinition:
    """Show the bake definition of a dry run, or that it builds nothing."""
    if plan is None:
        definition = BakeDefinition(group={}, target={})
        if not console.print_result(definition):
            console.print("nothing to build")
        return definition
    text = render_bake_definition(plan)
    definition = BakeDefinition(**json.loads(text))
    if not console.print_result(definition):
        console.print_verbatim(text.rstrip())
    return definition


def show_build_results(results: tuple[BuildResult, ...]) -> BuiltImages:
    """Show reference, digest and size of each image, and whether it changed."""
    if all(result.record.origin is not None for result in results):
        console.info("Nothing to build: third-party images are fetched as they are")
    built = BuiltImages({result.key: BuiltImage(**dict(result.record), new=result.is_new) for result in results})
    if not console.print_result(built):
        for image in built.images.values():
            state = console.style("new", "green") if image.new else "unchanged"
            size = console.format_bytes(image.size)
            console.print(f"{image.reference}  {image.config_digest[:19]}  {size}  {state}")
    return built
