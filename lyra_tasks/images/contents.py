"""What an archive says that it holds: its members, and the documents that tie them together, read strictly."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive import INDEX, LAYOUT, SAVED, blob_name
from lyra_tasks.images.documents import (
    MAX_DOCUMENT,
    NAME_ANNOTATION,
    TAG_ANNOTATION,
    Descriptor,
    ImageConfig,
    Index,
    Layout,
    Manifest,
    SavedImage,
    digest_of,
    parse,
)
from lyra_tasks.images.references import full_name
from lyra_tasks.images.tarball import SECTOR, padding, parse_header

_NAME = re.compile(r"oci-layout|index\.json|manifest\.json|blobs/sha256/[0-9a-f]{64}")
_MAX_MEMBERS = 1024


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie in the archive."""

    offset: int
    size: int


@dataclass(frozen=True)
class Contents:
    """The one image of an archive, as its documents describe it; layers are still unread."""

    manifest_digest: str
    manifest: Manifest
    config: ImageConfig
    references: tuple[str, ...]
    annotations: dict[str, str]


def scan(file: BinaryIO, where: str) -> dict[str, Member]:
    """The members of an archive by name; BundleError for anything but regular files with names of an image layout."""
    end = file.seek(0, 2)
    found: dict[str, Member] = {}
    offset = file.seek(0)
    while (header := parse_header(_exactly(file, SECTOR, where), where)) is not None:
        if header.kind != "file":
            raise BundleError(f"{where}: {header.name!r} is not a regular file")
        if not _NAME.fullmatch(header.name):
            raise BundleError(f"{where}: {header.name!r} does not belong into it")
        if header.name in found:
            raise BundleError(f"{where}: {header.name} is there twice")
        if len(found) >= _MAX_MEMBERS:
            raise BundleError(f"{where}: more than {_MAX_MEMBERS} members")
        found[header.name] = Member(offset + SECTOR, header.size)
        offset += SECTOR + header.size + padding(header.size)
        if offset > end:
            raise BundleError(f"{where}: {header.name} ends behind the end of the file")
        file.seek(offset)
    if file.read(SECTOR + 1) != bytes(SECTOR):
        raise BundleError(f"{where}: does not end as an archive does")
    return found


def resolve(file: BinaryIO, members: Mapping[str, Member], where: str, without: Collection[str] = ()) -> Contents:
    """The image that `index.json` and `manifest.json` both describe; the layers `without` are left out.

    BundleError if a member is missing or belongs to nothing, a size or digest is not the true one, or the two disagree.
    """
    reader = _Documents(file, members, where)
    parse(reader.read(LAYOUT), Layout, f"{where}: {LAYOUT}")
    index = parse(reader.read(INDEX), Index, f"{where}: {INDEX}")
    if len({(entry.digest, entry.size, entry.media_type) for entry in index.manifests}) != 1:
        raise BundleError(f"{where}: {INDEX} must name one image, under one or several names")
    top = index.manifests[0]
    manifest = parse(reader.blob(top), Manifest, f"{where}: {blob_name(top.digest)}")
    config = parse(reader.blob(manifest.config), ImageConfig, f"{where}: {blob_name(manifest.config.digest)}")
    for layer in manifest.layers:
        if layer.digest not in without:
            reader.member(layer)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise BundleError(f"{where}: the config names {len(config.rootfs.diff_ids)} layers, not {len(manifest.layers)}")
    names = tuple(
        full_name(entry.annotations[NAME_ANNOTATION])
        for entry in index.manifests
        if entry.annotations and NAME_ANNOTATION in entry.annotations
    )
    _compare_saved(reader, manifest, names)
    used = {LAYOUT, INDEX, SAVED, *map(blob_name, (top.digest, manifest.config.digest))}
    extra = sorted(
        members.keys() - used - {blob_name(layer.digest) for layer in manifest.layers if layer.digest not in without}
    )
    if extra:
        raise BundleError(f"{where}: {extra[0]} belongs to nothing")
    annotations = {
        key: value for key, value in (top.annotations or {}).items() if key not in {NAME_ANNOTATION, TAG_ANNOTATION}
    }
    return Contents(top.digest, manifest, config, tuple(sorted(names)), annotations)


def _compare_saved(reader: _Documents, manifest: Manifest, names: tuple[str, ...]) -> None:
    """What `docker load` reads on a classic store must be what a containerd store reads."""
    place = f"{reader.where}: {SAVED}"
    entries = parse(reader.read(SAVED), list[SavedImage], place)
    layers = [blob_name(layer.digest) for layer in manifest.layers]
    if [(entry.config, entry.layers) for entry in entries] != [(blob_name(manifest.config.digest), layers)]:
        raise BundleError(f"{place}: describes another image than {INDEX}")
    if sorted(map(full_name, entries[0].repo_tags or ())) != sorted(names):
        raise BundleError(f"{place}: gives the image other names than {INDEX}")


class _Documents:
    """Small members as bytes, and blobs that are what their descriptor says."""

    def __init__(self, file: BinaryIO, members: Mapping[str, Member], where: str) -> None:
        self.where = where
        self._file = file
        self._members = members

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise BundleError(f"{self.where}: {name} is missing")
        if member.size > MAX_DOCUMENT:
            raise BundleError(f"{self.where}: {name} is too large for a document")
        self._file.seek(member.offset)
        return _exactly(self._file, member.size, self.where)

    def member(self, descriptor: Descriptor) -> Member:
        name = blob_name(descriptor.digest)
        member = self._members.get(name)
        if member is None:
            raise BundleError(f"{self.where}: {name} is missing")
        if member.size != descriptor.size:
            raise BundleError(f"{self.where}: {name} has {member.size} bytes instead of {descriptor.size}")
        return member

    def blob(self, descriptor: Descriptor) -> bytes:
        self.member(descriptor)
        name = blob_name(descriptor.digest)
        data = self.read(name)
        if digest_of(data) != descriptor.digest:
            raise BundleError(f"{self.where}: {name} does not have the digest that it is named by")
        return data


def _exactly(file: BinaryIO, size: int, where: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BundleError(f"{where}: ends too early")
    return data
