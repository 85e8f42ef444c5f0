"""Images out of a containerd store, blob by blob: what a folder holds already, the engine does not send again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.buildx.bake import bake_targets, escape_bake_definition, format_destination
from lyra_tasks.engine.objects.containers import inspect_image

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

BLOBS_PATH = Path("blobs", "sha256")
"""Where an image layout keeps its blobs, each named by its digest."""


@dataclass(frozen=True)
class ExportRequest:
    """An image to export: its reference, what the engine calls it, and its platform."""

    reference: str
    engine_id: str
    platform: str


def can_export(engine: Engine, images: Sequence[ExportRequest]) -> bool:
    """Whether the engine has a store of blobs, and every reference there still names its image.

    A reference that the engine did not hold, BuildKit would ask a registry for.
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
    """Make the OCI image layout `layout` hold all images; blobs that lie in it are believed, and not sent.

    BuildKit's exporter for folders asks first which blobs are there. An image that is nothing but `FROM` another one
    has that one's config and manifest, to the byte, if BuildKit made it; the caller compares digests. Definition and
    log go to `folder`; the lock with the handle `lock` stays held while anything may be written there. BuildError where
    this engine or its Buildx cannot do it.
    """
    empty_context = directory / "context"
    empty_context.mkdir(parents=True, exist_ok=True)
    definition = directory / "export.json"
    definition.write_text(escape_bake_definition(json.dumps(_bake_definition(images, layout, empty_context))))
    bake_targets(
        engine,
        definition,
        metadata=directory / "export-metadata.json",
        log=directory / "export.log",
        epoch=None,  # another time than its own would change the image
        quiet=True,
        lock_handles=(lock_handle,),
    )


def _bake_definition(images: Sequence[ExportRequest], layout: Path, context: Path) -> dict[str, Any]:
    """A bake definition that builds nothing."""
    targets = {
        f"image-{number}": {
            "context": str(context),
            "dockerfile-inline": f"FROM {image.reference}\n",
            "platforms": [image.platform],
            "output": [f"type=oci,tar=false,{format_destination(layout)}"],
        }
        for number, image in enumerate(images)
    }
    return {"group": {"default": {"targets": list(targets)}}, "target": targets}
