"""Write image archives: a tar file that is both an OCI image layout and input for `docker load`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lyra_tasks.digests import canonical_json
from lyra_tasks.images.oci import (
    DOCKER_MANIFEST_FILE,
    INDEX_FILE,
    INDEX_MEDIA_TYPE,
    LAYOUT_FILE,
    NAME_ANNOTATION,
    TAG_ANNOTATION,
    ImageManifest,
    blob_name,
    parse_document,
)
from lyra_tasks.images.stream.layers import translate_disk_full
from lyra_tasks.images.stream.pack import PackedImage
from lyra_tasks.images.stream.tar import BLOCK_BYTES, SECTOR_BYTES, format_tar_header, padding_size
from lyra_tasks.references import familiar_reference, normalize_reference, reference_tag


def write_archive(
    path: Path, image: PackedImage, references: Sequence[str], annotations: Mapping[str, str], epoch: int
) -> None:
    """Write one image under all its `references` to a new file `path`, reproducibly.

    The file is not synced, so that the caller can do that while reading it back. `annotations` go into the OCI index;
    `epoch` (seconds since 1970) is the time of every member. An incomplete file is removed.
    """
    members = _build_members(image, sorted({normalize_reference(name) for name in references}), annotations)
    with translate_disk_full(path.parent), path.open("xb") as target:
        try:
            for name, contents in sorted(members.items()):
                _write_member(target, name, contents, epoch)
            target.write(bytes(2 * SECTOR_BYTES))
            target.flush()
        except BaseException:
            path.unlink()
            raise


def _build_members(image: PackedImage, names: list[str], annotations: Mapping[str, str]) -> dict[str, bytes | Path]:
    identity = image.identity
    docker_manifest = {
        "Config": blob_name(identity.config_digest),
        "RepoTags": [familiar_reference(name) for name in names],
        "Layers": [blob_name(layer.digest) for layer in identity.layers],
    }
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_MEDIA_TYPE,
        "manifests": _build_descriptors(image, names, annotations),
    }
    return {
        LAYOUT_FILE: canonical_json({"imageLayoutVersion": "1.0.0"}).encode(),
        INDEX_FILE: canonical_json(index).encode(),
        DOCKER_MANIFEST_FILE: canonical_json([docker_manifest]).encode(),
        **{blob_name(digest): contents for digest, contents in image.blobs().items()},
    }


def _build_descriptors(image: PackedImage, names: list[str], annotations: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one descriptor per name, since containerd reads the names of an image from its descriptors."""
    system, architecture, *variant = image.identity.platform.split("/")
    platform = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    descriptor = {
        "mediaType": parse_document(image.manifest, ImageManifest, "manifest").media_type,
        "digest": image.identity.manifest_digest,
        "size": len(image.manifest),
        "platform": platform,
    }
    name_annotations = [{NAME_ANNOTATION: name, TAG_ANNOTATION: reference_tag(name)} for name in names] or [{}]
    return [descriptor | {"annotations": {**annotations, **name}} for name in name_annotations]


def _write_member(target: BinaryIO, name: str, contents: bytes | Path, epoch: int) -> None:
    if isinstance(contents, bytes):
        size = len(contents)
        target.write(format_tar_header(name, size, epoch) + contents)
    else:
        size = contents.stat().st_size
        target.write(format_tar_header(name, size, epoch))
        with contents.open("rb") as source:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
    target.write(bytes(padding_size(size)))
