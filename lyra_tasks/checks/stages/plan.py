"""Plan the stages that are built as checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.config.platforms import Variant
from lyra_tasks.dockerfile.stages import CheckStage
from lyra_tasks.engine.bases.materials import (
    BuildMaterials,
    bake_target_inputs,
    create_base_targets,
    list_secret_paths,
)
from lyra_tasks.engine.buildx.bake import format_destination
from lyra_tasks.engine.buildx.contexts import BuildSources


@dataclass(frozen=True)
class PlannedStage:
    """A planned stage: its bake target, and the targets of its bases; `prerequisites` must be built first, with tags.

    The content of `secret_paths` and `secret_values` is redacted from its log. `export_directory` is where BuildKit
    writes the files of a stage that produces results, else None.
    """

    target: Mapping[str, Any]
    base_targets: Mapping[str, Any]
    prerequisites: Mapping[str, str]
    secret_paths: tuple[str, ...]
    epoch: int
    export_directory: Path | None
    secret_values: tuple[str, ...] = field(repr=False)
    sources: BuildSources | None = None


def plan_stage(
    config: Configuration,
    build: Variant,
    test: Test,
    checked: CheckStage,
    materials: BuildMaterials,
    *,
    scratch_directory: Path,
    epoch: int,
    secret_values: tuple[str, ...],
) -> PlannedStage:
    """Plan the build of a check's stage for the platform of `build`; it creates no image."""
    bases = create_base_targets(materials, [build.key])
    export_directory = scratch_directory if checked.is_results_only else None
    target = {
        **bake_target_inputs(config, build.key, materials),
        "target": test.stage,
        "platforms": [build.platform],
        "no-cache-filter": list(checked.no_cache_filter),
        "output": [f"type=local,{format_destination(export_directory)}" if export_directory else "type=cacheonly"],
    }
    return PlannedStage(
        target,
        bases.targets,
        bases.prerequisites,
        list_secret_paths(config, materials.root, [build.image]),
        epoch,
        export_directory,
        secret_values,
        materials.sources,
    )
