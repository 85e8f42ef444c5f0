"""`pack.json`: what of a bundle travels in a pack, and what the receiver must hold already."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field, model_validator

from lyra_tasks.bundle.format.layout import DOCUMENTS_FILE
from lyra_tasks.bundle.format.manifest import ArchiveName, Count, Document, Sha256, Version
from lyra_tasks.config.models import Name
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import MAX_PARTS, PartsWriter, open_parts, part_name
from lyra_tasks.images.oci import MAX_DOCUMENT_BYTES, Digest
from lyra_tasks.images.stream.codec import DigestWriter, decompress_blocks
from lyra_tasks.images.stream.pipeline import Block
from lyra_tasks.images.stream.tar import (
    BLOCK_BYTES,
    SECTOR_BYTES,
    BlockReader,
    format_tar_header,
    padding_size,
    read_tar_members,
)


class RequiredImage(Document):
    """An image that the receiver must hold, since its layers are left out: under the ids that stores give it."""

    reference: str
    config_digest: Digest
    manifest_digest: Digest


class PackedFile(Document):
    """A file of the pack as a whole, in one piece or in this many numbered parts; `size` in bytes."""

    file: str
    sha256: Sha256
    size: Count
    parts: Count = Field(le=MAX_PARTS, description="0: one piece under the file's own name")

    @property
    def part_names(self) -> list[str]:
        """What the file consists of, in order."""
        return [part_name(self.file, number) for number in range(1, self.parts + 1)] or [self.file]


class PackedArchive(PackedFile):
    """The archive of one image, `without` the layers of these digests, which are those of `held`."""

    file: ArchiveName
    image: Name
    omitted_layers: list[Digest]
    required_image: RequiredImage | None

    @model_validator(mode="after")
    def _require_image_for_omitted_layers(self) -> PackedArchive:
        if bool(self.omitted_layers) != (self.required_image is not None):
            raise ValueError("layers are left out of another image, or there is none")
        return self


class PackedDocuments(PackedFile):
    """The bundle's further files, with its own checksums and their signature, in one compressed tar."""

    file: Literal["documents.tar.gz"] = DOCUMENTS_FILE
    unpacked_size: Count


class PackManifest(Document):
    """What a pack is: of which bundle, since which version, its archives and documents."""

    schema_: Literal["lyra.pack/1"] = Field(default="lyra.pack/1", alias="schema")
    project: Name
    version: Version
    since: Version | None
    set_digest: Digest
    images: list[PackedArchive]
    documents: PackedDocuments


def write_document_archive(files: Mapping[str, Path], target: PartsWriter, epoch: int) -> int:
    """Write these files, sorted by name and dated `epoch`; the size of the tar before it was compressed, in bytes."""
    unpacked_size = 0
    encoder = zlib.compressobj(9, wbits=31)  # text that is read once: small counts, speed does not
    for block in _tar_blocks(files, epoch):
        unpacked_size += len(block)
        target.digester.write(encoder.compress(block))
    target.digester.write(encoder.flush())
    return unpacked_size


_MAX_FILES = 20_000


@dataclass(frozen=True)
class ArchivedDocuments:
    """The hexadecimal digest of every file by its name, and the content of those that were asked for."""

    digests: dict[str, str]
    contents: dict[str, bytes]


def read_document_archive(
    parts: Sequence[Path], expected: PackedDocuments, where: str, required_names: Collection[str]
) -> ArchivedDocuments:
    """Read all of it.

    BundleError naming `where` for anything but regular files, a name that is there twice, a `wanted` file that is
    missing, or other bytes than were described.
    """
    documents = ArchivedDocuments({}, {})
    digester = DigestWriter()
    with open_parts(parts) as file:
        blocks = decompress_blocks(_hashed_blocks(file, digester), "gzip", where, expected.unpacked_size)
        for header, contents in read_tar_members(BlockReader(blocks), where):
            if header.kind != "file":
                raise BundleError(f"{where}: {header.name!r} is not a regular file")
            if len(documents.digests) >= _MAX_FILES:
                raise BundleError(f"{where}: holds more than {_MAX_FILES} files, which is not believable")
            if header.name in documents.digests:
                raise BundleError(f"{where}: {header.name} is there twice")
            if header.name in required_names and header.size <= MAX_DOCUMENT_BYTES:
                documents.contents[header.name] = b"".join(contents)
                contents = iter([bytearray(documents.contents[header.name])])
            documents.digests[header.name] = _hash_blocks(contents)
    if (digester.digest, digester.size) != (f"sha256:{expected.sha256}", expected.size):
        raise BundleError(f"{where}: the pack gives it another digest or size")
    if missing := sorted(set(required_names) - documents.contents.keys()):
        raise BundleError(f"{where}: {missing[0]} is missing, or too large")
    return documents


def _tar_blocks(files: Mapping[str, Path], epoch: int) -> Iterator[bytes]:
    for name in sorted(files):
        size = files[name].stat().st_size
        yield format_tar_header(name, size, epoch)
        with files[name].open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
        yield bytes(padding_size(size))
    yield bytes(2 * SECTOR_BYTES)


def _hashed_blocks(file: BinaryIO, target: DigestWriter) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        target.write(block)
        yield block


def _hash_blocks(contents: Iterable[Block]) -> str:
    digest = hashlib.sha256()
    for block in contents:
        digest.update(block)
    return digest.hexdigest()
