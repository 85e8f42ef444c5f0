"""Stages that are built as checks: planned as bake definitions, built, and what they leave brought in."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.config.platforms import Variant
from lyra_tasks.config.targets import CheckedStage
from lyra_tasks.engine.buildx import Ending, bake, destination, literal
from lyra_tasks.engine.materials import (
    Materials,
    base_targets,
    build_bases,
    ingredients,
    secret_lines,
    secret_paths,
)
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.errors import BuildError
from lyra_tasks.files import walk

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

LOG = "build.log"
RESULTS = "results"
MOST = 16 * 1024**2
_TARGET = "stage"


@dataclass(frozen=True)
class PlannedStage:
    """A stage to build: its definition, the targets to be built before it with their tags, and secret files to mask.

    `masked` is what else may not stand in its log; `exported` where the files of a stage that holds results are put
    first, None for any other.
    """

    definition: Mapping[str, Any]
    first: Mapping[str, str]
    secrets: tuple[str, ...]
    epoch: int
    exported: Path | None
    masked: tuple[str, ...] = field(default=(), repr=False)


def plan(
    config: Configuration,
    build: Variant,
    test: Test,
    shape: CheckedStage,
    materials: Materials,
    *,
    scratch: Path,
    epoch: int,
    masked: tuple[str, ...] = (),
) -> PlannedStage:
    """Plan building the stage that `test` names for the platform of `build`; it makes no image, and no reference."""
    made = base_targets(materials, [build.key])
    exported = scratch if shape.results else None
    target = {
        **ingredients(config, build.key, materials),
        "target": test.stage,
        "platforms": [build.platform],
        "no-cache-filter": list(shape.anew),
        "output": [f"type=local,{destination(exported)}" if exported else "type=cacheonly"],
    }
    definition = {"target": {**made.targets, _TARGET: target}}
    secrets = secret_paths(config, materials.root, [build.image])
    return PlannedStage(definition, made.first, secrets, epoch, exported, masked)


def build(
    stage: PlannedStage,
    *,
    engine: Engine,
    owner: Owner,
    folder: Path,
    ending: Ending,
) -> str:
    """Build the stage; what was wrong, or nothing. Its log and its results are then in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    definition = folder / "bake.json"
    definition.write_text(literal(json.dumps(stage.definition, indent=2, sort_keys=True) + "\n"))

    def call(targets: tuple[str, ...]) -> None:
        bake(
            engine, definition, metadata=folder / "metadata.json", log=folder / LOG, epoch=stage.epoch,
            masked=(*secret_lines(stage.secrets), *stage.masked), targets=targets, ending=ending, quiet=True,
        )  # fmt: skip

    try:
        build_bases(engine, owner, stage.first, call)
        call((_TARGET,))
        return _bring_in(stage.exported, folder / RESULTS) if stage.exported else ""
    except BuildError as error:
        return "\n".join((error.message, *_said(error.details)))
    finally:
        for path in (definition, folder / "metadata.json"):
            path.unlink(missing_ok=True)
        if stage.exported is not None:
            shutil.rmtree(stage.exported, ignore_errors=True)


def _bring_in(exported: Path, results: Path) -> str:
    """Copy plain files, which are all that can be evidence; what was wrong, or nothing."""
    files = list(_files(exported))
    strange = [name for name, path in files if not stat.S_ISREG(path.lstat().st_mode) or console.clean(name) != name]
    if strange:
        return f"{strange[0]!r} is not a plain file with a plain name, and cannot be kept as a result"
    size = sum(path.stat().st_size for _, path in files)
    if size > MOST:
        return f"its results have {console.size(size)}; {console.size(MOST)} at most are kept as evidence"
    if not files:
        return "the stage holds no file, so that there is no result"
    for name, path in files:
        target = results / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return ""


def _files(top: Path) -> Iterator[tuple[str, Path]]:
    for folder, below, names in walk(top):
        links = [name for name in below if (folder / name).is_symlink()]
        for name in sorted((*names, *links)):
            path = folder / name
            yield path.relative_to(top).as_posix(), path


def _said(lines: Sequence[str]) -> list[str]:
    """What the step that failed printed, without BuildKit's frame around it."""
    return [line for line in lines if line.strip() and not line.startswith("ERROR: ")]
