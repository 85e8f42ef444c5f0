"""Read an image archive strictly: its members and its documents; copy it without some layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.console import escape
from lyra_tasks.digests import sha256_digest
from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import (
    DOCKER_MANIFEST_FILE,
    INDEX_FILE,
    LAYOUT_FILE,
    MAX_DOCUMENT_BYTES,
    NAME_ANNOTATION,
    Descriptor,
    ImageConfig,
    ImageIndex,
    ImageManifest,
    LayoutDocument,
    SavedImage,
    blob_name,
    parse_document,
)
from lyra_tasks.images.stream.tar import BLOCK_BYTES, SECTOR_BYTES, padding_size, parse_tar_header
from lyra_tasks.references import normalize_reference

_MEMBER_NAME = re.compile(r"oci-layout|index\.json|manifest\.json|blobs/sha256/[0-9a-f]{64}")
_MAX_MEMBERS = 20_000


@dataclass(frozen=True)
class Member:
    """The position of a member in the archive, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class ArchivedImage:
    """An image of an archive as its documents describe it; its layers have not been read.

    `annotations` are those in the index, by reference.
    """

    manifest_digest: str
    manifest: ImageManifest
    config: ImageConfig
    annotations: Mapping[str, Mapping[str, str]]

    @property
    def references(self) -> tuple[str, ...]:
        """Return the names of the image in their full form, sorted."""
        return tuple(sorted(self.annotations))

    @property
    def config_digest(self) -> str:
        """Return the digest of the image's config."""
        return self.manifest.config.digest

    @property
    def platform(self) -> str:
        """Return the platform as `os/arch[/variant]`."""
        return self.config.platform


def read_archive_members(file: BinaryIO, where: str) -> dict[str, Member]:
    """Return the members of an archive by name; all must be regular files of an image layout."""
    end = file.seek(0, 2)
    members: dict[str, Member] = {}
    offset = file.seek(0)
    while (header := parse_tar_header(_read_exactly(file, SECTOR_BYTES, where), where)) is not None:
        if header.kind != "file":
            raise BundleError(f"{where}: {header.name!r} is not a regular file")
        if not _MEMBER_NAME.fullmatch(header.name):
            raise BundleError(f"{where}: unexpected member {header.name!r}")
        if header.name in members:
            raise BundleError(f"{where}: duplicate member {header.name}")
        if len(members) >= _MAX_MEMBERS:
            raise BundleError(f"{where}: more than {_MAX_MEMBERS} members")
        members[header.name] = Member(offset + SECTOR_BYTES, header.size)
        offset += SECTOR_BYTES + header.size + padding_size(header.size)
        if offset > end:
            raise BundleError(f"{where}: {header.name} extends past the end of the file")
        file.seek(offset)
    if file.read(SECTOR_BYTES + 1) != bytes(SECTOR_BYTES):
        raise BundleError(f"{where}: invalid end of archive")
    return members


def read_archived_images(
    file: BinaryIO, members: Mapping[str, Member], where: str, omitted_layers: Collection[str] = ()
) -> tuple[ArchivedImage, ...]:
    """Return the images that `index.json` and `manifest.json` both describe, in an archive without `omitted_layers`."""
    reader = _DocumentReader(file, members, where)
    parse_document(reader.read_document(LAYOUT_FILE), LayoutDocument, f"{where}: {LAYOUT_FILE}")
    index = parse_document(reader.read_document(INDEX_FILE), ImageIndex, f"{where}: {INDEX_FILE}")
    descriptors_by_digest = _group_descriptors(index, f"{where}: {INDEX_FILE}")
    images = tuple(_read_image(reader, descriptors) for descriptors in descriptors_by_digest.values())
    _compare_docker_manifest(reader, images)
    used_blobs = {blob_name(digest) for digest in descriptors_by_digest}
    for image in images:
        included_layers = [layer for layer in image.manifest.layers if layer.digest not in omitted_layers]
        used_blobs |= {reader.find_member(blob) for blob in (image.manifest.config, *included_layers)}
    if extra := sorted(members.keys() - used_blobs - {LAYOUT_FILE, INDEX_FILE, DOCKER_MANIFEST_FILE}):
        raise BundleError(f"{where}: {extra[0]} is not referenced")
    return images


def _group_descriptors(index: ImageIndex, where: str) -> dict[str, list[Descriptor]]:
    """Return the descriptors by digest; an image has one per name, and no two images have the same name."""
    descriptors_by_digest: dict[str, list[Descriptor]] = {}
    names: set[str] = set()
    for descriptor in index.manifests:
        group = descriptors_by_digest.setdefault(descriptor.digest, [])
        if group and (group[0].size, group[0].media_type) != (descriptor.size, descriptor.media_type):
            raise BundleError(f"{where}: describes {descriptor.digest} in two ways")
        name = _full_name(descriptor)
        if name in names or (group and not name):
            raise BundleError(f"{where}: lists {escape(name or descriptor.digest)} twice")
        names |= {name} - {""}
        group.append(descriptor)
    if not descriptors_by_digest:
        raise BundleError(f"{where}: lists no image")
    return descriptors_by_digest


def _full_name(descriptor: Descriptor) -> str:
    """Return the name of an image in its full form, or nothing."""
    name = (descriptor.annotations or {}).get(NAME_ANNOTATION)
    return normalize_reference(name) if name else ""


def _read_image(reader: _DocumentReader, descriptors: Sequence[Descriptor]) -> ArchivedImage:
    """Read the manifest and the config of an image, which must fit each other."""
    where, descriptor = reader.where, descriptors[0]
    manifest = parse_document(reader.read_blob(descriptor), ImageManifest, f"{where}: {blob_name(descriptor.digest)}")
    config = parse_document(
        reader.read_blob(manifest.config), ImageConfig, f"{where}: {blob_name(manifest.config.digest)}"
    )
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise BundleError(f"{where}: the config names {len(config.rootfs.diff_ids)} layers, not {len(manifest.layers)}")
    annotations = {
        name: {key: value for key, value in (entry.annotations or {}).items() if key != NAME_ANNOTATION}
        for entry in descriptors
        if (name := _full_name(entry))
    }
    return ArchivedImage(descriptor.digest, manifest, config, annotations)


def _compare_docker_manifest(reader: _DocumentReader, images: Sequence[ArchivedImage]) -> None:
    """Require that the classic store reads the same images with `docker load` as the containerd store."""
    where = f"{reader.where}: {DOCKER_MANIFEST_FILE}"
    entries = parse_document(reader.read_document(DOCKER_MANIFEST_FILE), list[SavedImage], where)
    listed = [(entry.config, entry.layers, _sorted_names(entry.repo_tags or ())) for entry in entries]
    expected = [
        (blob_name(image.config_digest), [blob_name(layer.digest) for layer in image.manifest.layers],
         list(image.references))
        for image in images
    ]  # fmt: skip
    if sorted(entry[:2] for entry in listed) != sorted(entry[:2] for entry in expected):
        raise BundleError(f"{where}: describes different images than {INDEX_FILE}")
    if sorted(listed) != sorted(expected):
        raise BundleError(f"{where}: has different image names than {INDEX_FILE}")


def _sorted_names(references: Sequence[str]) -> list[str]:
    return sorted(map(normalize_reference, references))


class _DocumentReader:
    """A reader of small members and of blobs, which are checked against their descriptors."""

    def __init__(self, file: BinaryIO, members: Mapping[str, Member], where: str) -> None:
        self.where = where
        self._file = file
        self._members = members

    def read_document(self, name: str) -> bytes:
        member = self._find(name)
        if member.size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"{self.where}: {name} is larger than {MAX_DOCUMENT_BYTES} bytes")
        self._file.seek(member.offset)
        return _read_exactly(self._file, member.size, self.where)

    def find_member(self, descriptor: Descriptor) -> str:
        """Return the name of a blob, which must have the size of its descriptor."""
        name = blob_name(descriptor.digest)
        if (size := self._find(name).size) != descriptor.size:
            raise BundleError(f"{self.where}: {name} has {size} bytes instead of {descriptor.size}")
        return name

    def read_blob(self, descriptor: Descriptor) -> bytes:
        name = self.find_member(descriptor)
        data = self.read_document(name)
        if sha256_digest(data) != descriptor.digest:
            raise BundleError(f"{self.where}: {name} does not have the digest in its name")
        return data

    def _find(self, name: str) -> Member:
        if name not in self._members:
            raise BundleError(f"{self.where}: {name} is missing")
        return self._members[name]


def _read_exactly(file: BinaryIO, size: int, where: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BundleError(f"{where}: truncated")
    return data


def read_blocks(file: BinaryIO, offset: int, size: int, where: str) -> Iterator[bytes]:
    """Yield `size` bytes from `offset` in blocks; BundleError if the file is truncated."""
    file.seek(offset)
    while size:
        block = file.read(min(size, BLOCK_BYTES))
        if not block:
            raise BundleError(f"{where}: truncated")
        size -= len(block)
        yield block


def read_without_layers(archive: Path, omitted_layers: Collection[str]) -> Iterator[bytes]:
    """Yield an archive without some layers, which it must have, otherwise byte for byte and in the same order."""
    with archive.open("rb") as source:
        members = read_archive_members(source, str(archive))
        excluded_members = {blob_name(digest) for digest in omitted_layers}
        if missing := sorted(excluded_members - members.keys()):
            raise BundleError(f"{archive}: {missing[0]} is missing")
        for name, member in members.items():
            if name not in excluded_members:
                size = SECTOR_BYTES + member.size + padding_size(member.size)
                yield from read_blocks(source, member.offset - SECTOR_BYTES, size, str(archive))
        yield bytes(2 * SECTOR_BYTES)
