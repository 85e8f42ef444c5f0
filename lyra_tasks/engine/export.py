"""Images out of a containerd store, blob by blob: what a folder holds already, the engine does not send again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.buildx import bake, destination, literal
from lyra_tasks.engine.objects import inspect_image

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

BLOBS = Path("blobs", "sha256")
"""Where an image layout keeps its blobs, each named by its digest."""


@dataclass(frozen=True)
class Exported:
    """An image to export: its reference, what the engine calls it, and its platform."""

    reference: str
    engine_id: str
    platform: str


def exportable(engine: Engine, images: Sequence[Exported]) -> bool:
    """Whether the engine has a store of blobs, and every reference there still names its image.

    A reference that the engine did not hold, BuildKit would ask a registry for.
    """
    if engine.facts.store != "containerd":
        return False
    found = [inspect_image(engine, image.reference) for image in images]
    return all(each and each["Id"] == image.engine_id for each, image in zip(found, images, strict=True))


def export(engine: Engine, images: Sequence[Exported], layout: Path, folder: Path, lock: int) -> None:
    """Make the OCI image layout `layout` hold all images; blobs that lie in it are believed, and not sent.

    BuildKit's exporter for folders asks first which blobs are there. An image that is nothing but `FROM` another one
    has that one's config and manifest, to the byte, if BuildKit made it; the caller compares digests. Definition and
    log go to `folder`; the lock with the handle `lock` stays held while anything may be written there. BuildError where
    this engine or its Buildx cannot do it.
    """
    nothing = folder / "context"
    nothing.mkdir(parents=True, exist_ok=True)
    definition = folder / "export.json"
    definition.write_text(literal(json.dumps(_definition(images, layout, nothing))))
    bake(
        engine,
        definition,
        metadata=folder / "export-metadata.json",
        log=folder / "export.log",
        epoch=None,  # another time than its own would change the image
        quiet=True,
        held=(lock,),
    )


def _definition(images: Sequence[Exported], layout: Path, context: Path) -> dict[str, Any]:
    """A bake definition that builds nothing."""
    targets = {
        f"image-{number}": {
            "context": str(context),
            "dockerfile-inline": f"FROM {image.reference}\n",
            "platforms": [image.platform],
            "output": [f"type=oci,tar=false,{destination(layout)}"],
        }
        for number, image in enumerate(images)
    }
    return {"group": {"default": {"targets": list(targets)}}, "target": targets}
