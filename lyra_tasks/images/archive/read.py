"""What an archive says that it holds: its members, and the documents that tie them together, read strictly."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import PartsWriter
from lyra_tasks.images.archive.write import DOCKER_MANIFEST_FILE, INDEX_FILE, LAYOUT_FILE, blob_name
from lyra_tasks.images.oci import (
    MAX_DOCUMENT_BYTES,
    NAME_ANNOTATION,
    TAG_ANNOTATION,
    Descriptor,
    ImageConfig,
    ImageIndex,
    ImageManifest,
    LayoutDocument,
    SavedImage,
    parse_document,
    sha256_digest,
)
from lyra_tasks.images.stream.tar import BLOCK_BYTES, SECTOR_BYTES, padding_size, parse_tar_header
from lyra_tasks.references import normalize_reference

_MEMBER_NAME = re.compile(r"oci-layout|index\.json|manifest\.json|blobs/sha256/[0-9a-f]{64}")
_MAX_MEMBERS = 1024


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie in the archive."""

    offset: int
    size: int


@dataclass(frozen=True)
class ArchivedImage:
    """The one image of an archive, as its documents describe it; layers are still unread."""

    manifest_digest: str
    manifest: ImageManifest
    config: ImageConfig
    references: tuple[str, ...]
    annotations: dict[str, str]


def read_archive_members(file: BinaryIO, where: str) -> dict[str, Member]:
    """The members of an archive by name; BundleError for anything but regular files with names of an image layout."""
    end = file.seek(0, 2)
    members: dict[str, Member] = {}
    offset = file.seek(0)
    while (header := parse_tar_header(_read_exactly(file, SECTOR_BYTES, where), where)) is not None:
        if header.kind != "file":
            raise BundleError(f"{where}: {header.name!r} is not a regular file")
        if not _MEMBER_NAME.fullmatch(header.name):
            raise BundleError(f"{where}: {header.name!r} does not belong into it")
        if header.name in members:
            raise BundleError(f"{where}: {header.name} is there twice")
        if len(members) >= _MAX_MEMBERS:
            raise BundleError(f"{where}: more than {_MAX_MEMBERS} members")
        members[header.name] = Member(offset + SECTOR_BYTES, header.size)
        offset += SECTOR_BYTES + header.size + padding_size(header.size)
        if offset > end:
            raise BundleError(f"{where}: {header.name} ends behind the end of the file")
        file.seek(offset)
    if file.read(SECTOR_BYTES + 1) != bytes(SECTOR_BYTES):
        raise BundleError(f"{where}: does not end as an archive does")
    return members


def read_archived_image(
    file: BinaryIO, members: Mapping[str, Member], where: str, excluding: Collection[str] = ()
) -> ArchivedImage:
    """The image that `index.json` and `manifest.json` both describe; the layers `without` are left out.

    BundleError if a member is missing or belongs to nothing, a size or digest is not the true one, or the two disagree.
    """
    reader = _DocumentReader(file, members, where)
    parse_document(reader.read_document(LAYOUT_FILE), LayoutDocument, f"{where}: {LAYOUT_FILE}")
    index = parse_document(reader.read_document(INDEX_FILE), ImageIndex, f"{where}: {INDEX_FILE}")
    if len({(entry.digest, entry.size, entry.media_type) for entry in index.manifests}) != 1:
        raise BundleError(f"{where}: {INDEX_FILE} must name one image, under one or several names")
    descriptor = index.manifests[0]
    manifest = parse_document(reader.read_blob(descriptor), ImageManifest, f"{where}: {blob_name(descriptor.digest)}")
    config = parse_document(
        reader.read_blob(manifest.config), ImageConfig, f"{where}: {blob_name(manifest.config.digest)}"
    )
    for layer in manifest.layers:
        if layer.digest not in excluding:
            reader.find_member(layer)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise BundleError(f"{where}: the config names {len(config.rootfs.diff_ids)} layers, not {len(manifest.layers)}")
    names = tuple(
        normalize_reference(entry.annotations[NAME_ANNOTATION])
        for entry in index.manifests
        if entry.annotations and NAME_ANNOTATION in entry.annotations
    )
    _compare_docker_manifest(reader, manifest, names)
    used_names = {
        LAYOUT_FILE,
        INDEX_FILE,
        DOCKER_MANIFEST_FILE,
        *map(blob_name, (descriptor.digest, manifest.config.digest)),
    }
    extra = sorted(
        members.keys()
        - used_names
        - {blob_name(layer.digest) for layer in manifest.layers if layer.digest not in excluding}
    )
    if extra:
        raise BundleError(f"{where}: {extra[0]} belongs to nothing")
    annotations = {
        key: value
        for key, value in (descriptor.annotations or {}).items()
        if key not in {NAME_ANNOTATION, TAG_ANNOTATION}
    }
    return ArchivedImage(descriptor.digest, manifest, config, tuple(sorted(names)), annotations)


def _compare_docker_manifest(reader: _DocumentReader, manifest: ImageManifest, names: tuple[str, ...]) -> None:
    """What `docker load` reads on a classic store must be what a containerd store reads."""
    place = f"{reader.where}: {DOCKER_MANIFEST_FILE}"
    entries = parse_document(reader.read_document(DOCKER_MANIFEST_FILE), list[SavedImage], place)
    layers = [blob_name(layer.digest) for layer in manifest.layers]
    if [(entry.config, entry.layers) for entry in entries] != [(blob_name(manifest.config.digest), layers)]:
        raise BundleError(f"{place}: describes another image than {INDEX_FILE}")
    if sorted(map(normalize_reference, entries[0].repo_tags or ())) != sorted(names):
        raise BundleError(f"{place}: gives the image other names than {INDEX_FILE}")


class _DocumentReader:
    """Small members as bytes, and blobs that are what their descriptor says."""

    def __init__(self, file: BinaryIO, members: Mapping[str, Member], where: str) -> None:
        self.where = where
        self._file = file
        self._members = members

    def read_document(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise BundleError(f"{self.where}: {name} is missing")
        if member.size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"{self.where}: {name} is too large for a document")
        self._file.seek(member.offset)
        return _read_exactly(self._file, member.size, self.where)

    def find_member(self, descriptor: Descriptor) -> Member:
        name = blob_name(descriptor.digest)
        member = self._members.get(name)
        if member is None:
            raise BundleError(f"{self.where}: {name} is missing")
        if member.size != descriptor.size:
            raise BundleError(f"{self.where}: {name} has {member.size} bytes instead of {descriptor.size}")
        return member

    def read_blob(self, descriptor: Descriptor) -> bytes:
        self.find_member(descriptor)
        name = blob_name(descriptor.digest)
        data = self.read_document(name)
        if sha256_digest(data) != descriptor.digest:
            raise BundleError(f"{self.where}: {name} does not have the digest that it is named by")
        return data


def _read_exactly(file: BinaryIO, size: int, where: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BundleError(f"{where}: ends too early")
    return data


def copy_without_layers(archive: Path, target: PartsWriter, digests: Collection[str]) -> None:
    """Copy all members of an archive but the blobs of these digests, byte for byte and in the same order.

    BundleError naming the archive if it is damaged or does not hold one of them.
    """
    with archive.open("rb") as source:
        members = read_archive_members(source, str(archive))
        excluded_members = {blob_name(digest) for digest in digests}
        if missing := sorted(excluded_members - members.keys()):
            raise BundleError(f"{archive}: {missing[0]} is missing")
        for name, member in members.items():
            if name not in excluded_members:
                source.seek(member.offset - SECTOR_BYTES)
                remaining = SECTOR_BYTES + member.size + padding_size(member.size)
                while remaining:
                    block = source.read(min(remaining, BLOCK_BYTES))
                    if not block:
                        raise BundleError(f"{archive}: ends too early")
                    target.digester.write(block)
                    remaining -= len(block)
        target.digester.write(bytes(2 * SECTOR_BYTES))
