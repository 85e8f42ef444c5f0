"""Plan and build stages as checks, and collect the files that they produce."""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.config.platforms import Variant
from lyra_tasks.dockerfile.stages import CheckStage
from lyra_tasks.engine.bases.materials import (
    BuildMaterials,
    bake_target_inputs,
    build_prerequisites,
    create_base_targets,
    list_secret_paths,
    read_secret_lines,
)
from lyra_tasks.engine.buildx.bake import bake_targets, format_destination
from lyra_tasks.engine.buildx.contexts import BuildSources, escape_bake_definition
from lyra_tasks.engine.buildx.docker_cli import CancelHook
from lyra_tasks.errors import BuildError
from lyra_tasks.files import walk_directory

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

STAGE_LOG = "build.log"
RESULTS_DIRECTORY = "results"
MAX_RESULTS_BYTES = 16 * 1024**2
_STAGE_TARGET = "stage"


@dataclass(frozen=True)
class PlannedStage:
    """A planned stage: its bake definition, and the base targets to build first with their tags.

    The content of `secret_paths` and `secret_values` is redacted from its log. `export_directory` is where BuildKit
    writes the files of a stage that produces results, else None.
    """

    definition: Mapping[str, Any]
    bases: Mapping[str, str]
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
    definition = {"target": {**bases.targets, _STAGE_TARGET: target}}
    secrets = list_secret_paths(config, materials.root, [build.image])
    return PlannedStage(
        definition, bases.prerequisites, secrets, epoch, export_directory, secret_values, materials.sources
    )


def check_stage(lab: Lab, stage: PlannedStage, directory: Path, timeout: float) -> str:
    """Build a stage; return the problem, or an empty string. Its log and its results are written to `directory`."""
    started = time.monotonic()
    problem = _build_stage(lab, stage, directory, partial(lab.cancellation.on_cancel, timeout=timeout))
    lab.cancellation.raise_if_cancelled()
    if problem and time.monotonic() - started >= timeout:
        return f"the stage was not built within {timeout:g} s; {problem}"
    return problem


def _build_stage(lab: Lab, stage: PlannedStage, directory: Path, on_cancel: CancelHook) -> str:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    definition, metadata = directory / "bake.json", directory / "metadata.json"
    definition.write_text(escape_bake_definition(json.dumps(stage.definition, indent=2, sort_keys=True) + "\n"))

    def run_bake(targets: tuple[str, ...]) -> None:
        bake_targets(
            lab.engine,
            definition,
            metadata=metadata,
            log=directory / STAGE_LOG,
            epoch=stage.epoch,
            redacted_values=(*read_secret_lines(stage.secret_paths), *stage.secret_values),
            targets=targets,
            cancel_hook=on_cancel,
            quiet=True,
            sources=stage.sources,
        )

    try:
        build_prerequisites(lab.engine, lab.owner, stage.bases, run_bake)
        run_bake((_STAGE_TARGET,))
        return _copy_results(stage.export_directory, directory / RESULTS_DIRECTORY) if stage.export_directory else ""
    except BuildError as error:
        # without BuildKit's summary around the output of the failed step
        output = (line for line in error.details if line.strip() and not line.startswith("ERROR: "))
        return "\n".join((error.message, *output))
    finally:
        for path in (definition, metadata):
            path.unlink(missing_ok=True)
        if stage.export_directory is not None:
            shutil.rmtree(stage.export_directory, ignore_errors=True)


def _copy_results(export_directory: Path, results_directory: Path) -> str:
    """Copy the regular files of a stage; return the problem, or an empty string."""
    files = list(_list_files(export_directory))
    unsupported = [
        name for name, path in files if not stat.S_ISREG(path.lstat().st_mode) or console.sanitize(name) != name
    ]
    if unsupported:
        return f"{unsupported[0]!r}: not a regular file with a printable name"
    size = sum(path.stat().st_size for _, path in files)
    if size > MAX_RESULTS_BYTES:
        return f"results too large: {console.format_bytes(size)}, limit {console.format_bytes(MAX_RESULTS_BYTES)}"
    if not files:
        return "the stage produced no files"
    for name, path in files:
        target = results_directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return ""


def _list_files(root: Path) -> Iterator[tuple[str, Path]]:
    for directory, subdirectories, names in walk_directory(root):
        links = [name for name in subdirectories if (directory / name).is_symlink()]
        for name in sorted((*names, *links)):
            path = directory / name
            yield path.relative_to(root).as_posix(), path
