"""The archive that travels: one tar that is an OCI image layout and a `docker load` file at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lyra_tasks.images import documents
from lyra_tasks.images.documents import NAME_ANNOTATION, TAG_ANNOTATION, Manifest, parse
from lyra_tasks.images.layers import room_for
from lyra_tasks.images.pack import PackedImage
from lyra_tasks.images.references import familiar_name, full_name, tag_of
from lyra_tasks.images.tarball import BLOCK, SECTOR, format_header, padding
from lyra_tasks.records.store import canonical

LAYOUT = "oci-layout"
INDEX = "index.json"
SAVED = "manifest.json"
BLOBS = "blobs/sha256/"


def blob_name(digest: str) -> str:
    """The member of the archive that holds the blob of this digest."""
    return BLOBS + digest.removeprefix("sha256:")


def write_archive(
    path: Path, image: PackedImage, references: Sequence[str], annotations: Mapping[str, str], epoch: int
) -> None:
    """Write one image under all its `references` to a new file `path`; the same image is the same bytes.

    It is not synced yet: that can be done while it is read back. `annotations` go into the OCI index beside the names;
    `epoch` (seconds since 1970) is the time of every member. NoSpaceError if the disk is full; a file that could not be
    finished is removed.
    """
    members = _members(image, sorted({full_name(name) for name in references}), annotations)
    with room_for(path.parent), path.open("xb") as target:
        try:
            for name, contents in sorted(members.items()):
                _write_member(target, name, contents, epoch)
            target.write(bytes(2 * SECTOR))
            target.flush()
        except BaseException:
            path.unlink()
            raise


def _members(image: PackedImage, names: list[str], annotations: Mapping[str, str]) -> dict[str, bytes | Path]:
    identity = image.identity
    saved = {
        "Config": blob_name(identity.config_digest),
        "RepoTags": [familiar_name(name) for name in names],
        "Layers": [blob_name(layer.digest) for layer in identity.layers],
    }
    index = {"schemaVersion": 2, "mediaType": documents.INDEX, "manifests": _descriptors(image, names, annotations)}
    return {
        LAYOUT: canonical({"imageLayoutVersion": "1.0.0"}).encode(),
        INDEX: canonical(index).encode(),
        SAVED: canonical([saved]).encode(),
        **{blob_name(digest): contents for digest, contents in image.blobs().items()},
    }


def _descriptors(image: PackedImage, names: list[str], annotations: Mapping[str, str]) -> list[dict[str, Any]]:
    """One descriptor per name: that is how containerd reads the names of an image from a layout."""
    system, architecture, *variant = image.identity.platform.split("/")
    platform = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    descriptor = {
        "mediaType": _media_type(image),
        "digest": image.identity.manifest_digest,
        "size": len(image.manifest),
        "platform": platform,
    }
    named = [{NAME_ANNOTATION: name, TAG_ANNOTATION: tag_of(name)} for name in names] or [{}]
    return [descriptor | {"annotations": {**annotations, **name}} for name in named]


def _media_type(image: PackedImage) -> str:
    return parse(image.manifest, Manifest, "manifest").media_type


def _write_member(target: BinaryIO, name: str, contents: bytes | Path, epoch: int) -> None:
    if isinstance(contents, bytes):
        size = len(contents)
        target.write(format_header(name, size, epoch) + contents)
    else:
        size = contents.stat().st_size
        target.write(format_header(name, size, epoch))
        with contents.open("rb") as source:
            for block in _blocks(source):
                target.write(block)
    target.write(bytes(padding(size)))


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    while block := source.read(BLOCK):
        yield block
