"""Export images from a containerd store blob by blob, without those that the directory already holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.buildx.bake import bake_targets, format_destination
from lyra_tasks.engine.buildx.contexts import escape_bake_definition
from lyra_tasks.engine.objects.containers import inspect_image

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

BLOBS_PATH = Path("blobs", "sha256")
"""The directory of blobs in an OCI image layout; each is named by its digest."""


@dataclass(frozen=True)
class ExportRequest:
    """An image to export."""

    reference: str
    engine_id: str
    platform: str


def can_export(engine: Engine, images: Sequence[ExportRequest]) -> bool:
    """Return whether the engine has a containerd store in which every reference still names its image.

    BuildKit would ask a registry for any other reference.
    """
    if engine.facts.store != "containerd":
        return False
    documents = [inspect_image(engine, image.reference) for image in images]
    return all(
        document and document["Id"] == image.engine_id for document, image in zip(documents, images, strict=True)
    )


def export_layout(
    engine: Engine, images: Sequence[ExportRequest], layout: Path, directory: Path, lock_handle: int
) -> None:
    """Export images into the directory of blobs in `layout`, which exists; those in it are trusted and not sent.

    BuildKit asks its exporter first which blobs exist. An image that consists of `FROM` another one has the same config
    and manifest, byte for byte, if BuildKit made it; the caller compares digests. `directory` gets definition and log,
    and the lock is held while anything may be written there. Raises BuildError if the engine or Buildx cannot do it.
    """
    empty_context = directory / "context"
    empty_context.mkdir(parents=True, exist_ok=True)
    definition = directory / "export.json"
    destinations = [directory / f"layout-{number}" for number in range(len(images))]
    for destination in destinations:  # Buildx fails if two targets write the index of one layout at the same time
        destination.mkdir(exist_ok=True)
        blobs = destination / BLOBS_PATH.parts[0]
        blobs.unlink(missing_ok=True)
        blobs.symlink_to(layout / blobs.name)
    definition.write_text(escape_bake_definition(json.dumps(_bake_definition(images, destinations, empty_context))))
    bake_targets(
        engine,
        definition,
        metadata=directory / "export-metadata.json",
        log=directory / "export.log",
        epoch=None,  # another time than its own would change the image
        quiet=True,
        lock_handles=(lock_handle,),
    )


def _bake_definition(images: Sequence[ExportRequest], layouts: Sequence[Path], context: Path) -> dict[str, Any]:
    """Return a bake definition that only exports, each image into its own layout."""
    targets = {
        f"image-{number}": {
            "context": str(context),
            "dockerfile-inline": f"FROM {image.reference}\n",
            "platforms": [image.platform],
            "output": [f"type=oci,tar=false,{format_destination(layout)}"],
        }
        for number, (image, layout) in enumerate(zip(images, layouts, strict=True))
    }
    return {"group": {"default": {"targets": list(targets)}}, "target": targets}
