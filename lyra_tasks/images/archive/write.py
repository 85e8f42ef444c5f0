"""Write image archives: a tar file that is both an OCI image layout and input for `docker load`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lyra_tasks.digests import canonical_json
from lyra_tasks.files import link_or_copy
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
from lyra_tasks.references import familiar_reference, normalize_reference


@dataclass(frozen=True)
class ArchiveEntry:
    """An image of an archive, with all its references, and annotations for the OCI index."""

    image: PackedImage
    references: Sequence[str]
    annotations: Mapping[str, str] = field(default_factory=dict)


def write_archive(path: Path, entries: Sequence[ArchiveEntry], epoch: int) -> None:
    """Write images to a new file `path`, each blob once, reproducibly and independent of the order of the images.

    The file is not synced, so that the caller can do that while reading it back. `epoch` (seconds since 1970) is the
    time of every member. An incomplete file is removed.
    """
    members = _build_members(entries)
    with translate_disk_full(path.parent), path.open("xb") as target:
        try:
            for name, contents in sorted(members.items()):
                _write_member(target, name, contents, epoch)
            target.write(bytes(2 * SECTOR_BYTES))
            target.flush()
        except BaseException:
            path.unlink()
            raise


def write_layout(directory: Path, image: PackedImage) -> None:
    """Write an image without a name as OCI image layout into `directory`, which must be empty; its layers are links."""
    for name, contents in _build_members([ArchiveEntry(image, ())]).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        else:
            link_or_copy(contents, path)


def _build_members(entries: Sequence[ArchiveEntry]) -> dict[str, bytes | Path]:
    descriptors = [descriptor for entry in entries for descriptor in _build_descriptors(entry)]
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_MEDIA_TYPE,
        "manifests": sorted(descriptors, key=canonical_json),
    }
    blobs = {digest: contents for entry in entries for digest, contents in entry.image.blobs().items()}
    return {
        LAYOUT_FILE: canonical_json({"imageLayoutVersion": "1.0.0"}).encode(),
        INDEX_FILE: canonical_json(index).encode(),
        DOCKER_MANIFEST_FILE: canonical_json(_build_docker_manifest(entries)).encode(),
        **{blob_name(digest): contents for digest, contents in blobs.items()},
    }


def _build_docker_manifest(entries: Sequence[ArchiveEntry]) -> list[dict[str, Any]]:
    """Return the images as `docker save` lists them: identical ones once, with the names of all."""
    images: dict[str, dict[str, Any]] = {}
    for entry in entries:
        identity = entry.image.identity
        image = images.setdefault(
            identity.manifest_digest,
            {
                "Config": blob_name(identity.config_digest),
                "RepoTags": [],
                "Layers": [blob_name(layer.digest) for layer in identity.layers],
            },
        )
        image["RepoTags"] = sorted({*image["RepoTags"], *map(familiar_reference, entry.references)})
    return sorted(images.values(), key=canonical_json)


def _build_descriptors(entry: ArchiveEntry) -> list[dict[str, Any]]:
    """Return one descriptor per name, since containerd reads the names of an image from its descriptors.

    Other programs select an image by the second annotation, which must not be the same for two images.
    """
    identity = entry.image.identity
    system, architecture, *variant = identity.platform.split("/")
    platform = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    descriptor = {
        "mediaType": parse_document(entry.image.manifest, ImageManifest, "manifest").media_type,
        "digest": identity.manifest_digest,
        "size": len(entry.image.manifest),
        "platform": platform,
    }
    names = sorted({normalize_reference(name) for name in entry.references})
    name_annotations = [{NAME_ANNOTATION: name, TAG_ANNOTATION: familiar_reference(name)} for name in names] or [{}]
    return [descriptor | {"annotations": {**entry.annotations, **name}} for name in name_annotations]


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
