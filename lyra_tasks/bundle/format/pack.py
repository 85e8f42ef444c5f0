"""The format of a pack: `pack.json` and `documents.tar.gz`."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    DOCUMENTS_FILE,
    ENVIRONMENT_FILE,
    JOURNAL_FILE,
    MANIFEST_FILE,
    PACK_FILE,
    PREVIOUS_FILE,
    PROVENANCE_FILE,
    RECEIVE_SCRIPT,
    REPORT_FILE,
    RULES_FILE,
    SUMMARY_FILE,
    TESTS_JSON_FILE,
    TESTS_XML_FILE,
)
from lyra_tasks.bundle.format.manifest import (
    ArchiveName,
    Count,
    Document,
    Version,
    decode_document,
    read_small_file,
)
from lyra_tasks.config.models import Name, Platform
from lyra_tasks.config.values import Digest, Sha256Hex
from lyra_tasks.digests import hex_part
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import MAX_PARTS, PartsWriter, open_parts, part_name
from lyra_tasks.images.oci import MAX_DOCUMENT_BYTES
from lyra_tasks.images.stream.codec import (
    DigestWriter,
    decompress_blocks,
    read_file_blocks,
    tee_blocks,
    write_blocks,
)
from lyra_tasks.images.stream.tar import (
    SECTOR_BYTES,
    Block,
    BlockReader,
    format_tar_header,
    padding_size,
    read_tar_members,
)

_MAX_FILES = 20_000
# gzip finds what is alike within 32 KiB: the archive begins with these, which saves a tenth of it
_SIMILAR_FILES = (
    TESTS_JSON_FILE, RULES_FILE, TESTS_XML_FILE, REPORT_FILE, MANIFEST_FILE, PREVIOUS_FILE, PROVENANCE_FILE,
    CHECKSUMS_FILE, JOURNAL_FILE,
)  # fmt: skip

PACK_ONLY_FILES = frozenset({PACK_FILE, RECEIVE_SCRIPT, SUMMARY_FILE})
"""Files of a pack that its bundle has with other content, or not at all."""


class RequiredImage(Document):
    """An image that must be on the receiving node because its layers are omitted."""

    reference: str
    config_digest: Digest
    manifest_digest: Digest


class PackedFile(Document):
    """A file of the pack, in one piece or in numbered parts; `sha256` and `size` (bytes) are those of the whole."""

    file: str
    sha256: Sha256Hex
    size: Count
    parts: Count = Field(le=MAX_PARTS, description="0: one piece under the file's own name")

    @property
    def part_names(self) -> list[str]:
        """Return the names of the files on disk, in order."""
        return [part_name(self.file, number) for number in range(1, self.parts + 1)] or [self.file]


class PackedArchive(PackedFile):
    """The archive for a platform without the `omitted_layers`, which the `required_images` have."""

    file: ArchiveName
    platform: Platform
    omitted_layers: list[Digest]
    required_images: list[RequiredImage]

    @model_validator(mode="after")
    def _require_images_for_omitted_layers(self) -> PackedArchive:
        if bool(self.omitted_layers) != bool(self.required_images):
            raise ValueError("omitted layers and required images must be given together")
        return self


class PackedDocuments(PackedFile):
    """All other files of the bundle, with its checksums and signature, in one compressed tar."""

    file: Literal["documents.tar.gz"] = DOCUMENTS_FILE
    unpacked_size: Count


class PackManifest(Document):
    """The content of `pack.json`; layers of version `since` are omitted."""

    schema_: Literal["lyra.pack/2"] = Field(default="lyra.pack/2", alias="schema")
    project: Name
    version: Version
    since: Version | None
    set_digest: Digest
    archives: list[PackedArchive]
    documents: PackedDocuments


def read_pack_manifest(directory: Path) -> PackManifest:
    """Read the description of the pack in `directory`."""
    return decode_document(read_small_file(directory / PACK_FILE), PackManifest, str(directory / PACK_FILE))


def is_operator_file(name: str) -> bool:
    """Return whether a pack contains this file as it is, for an operator without tools to unpack it."""
    return name.startswith("deploy/") and name != ENVIRONMENT_FILE


def write_document_archive(files: Mapping[str, Path], target: PartsWriter, epoch: int) -> int:
    """Write a reproducible compressed tar, dated `epoch`; return its uncompressed size in bytes."""
    return write_compressed(_tar_blocks(files, epoch), target)


def write_compressed(blocks: Iterable[Block], target: PartsWriter) -> int:
    """Write small texts with gzip, as small as possible; return their uncompressed size in bytes."""
    unpacked_size = 0
    encoder = zlib.compressobj(9, wbits=31)
    for block in blocks:
        unpacked_size += len(block)
        target.digester.write(encoder.compress(block))
    target.digester.write(encoder.flush())
    return unpacked_size


@dataclass(frozen=True)
class ArchivedDocuments:
    """The hexadecimal digest of each file in the archive, and the content of the required ones."""

    digests: dict[str, str]
    contents: dict[str, bytes]


def read_document_archive(
    parts: Sequence[Path], expected: PackedDocuments, where: str, required_names: Collection[str]
) -> ArchivedDocuments:
    """Read the whole archive, and keep the content of the `required_names`; raise BundleError unless it is valid."""
    documents = ArchivedDocuments({}, {})
    digester = DigestWriter()
    with open_parts(parts) as file:
        compressed = tee_blocks(read_file_blocks(file), digester.write)
        blocks = decompress_blocks(compressed, "gzip", where, expected.unpacked_size)
        for header, contents in read_tar_members(BlockReader(blocks), where):
            if header.kind != "file":
                raise BundleError(f"{where}: {header.name!r} is not a regular file")
            if len(documents.digests) >= _MAX_FILES:
                raise BundleError(f"{where}: contains more than {_MAX_FILES} files")
            if header.name in documents.digests:
                raise BundleError(f"{where}: duplicate file {header.name}")
            if header.name in required_names and header.size <= MAX_DOCUMENT_BYTES:
                documents.contents[header.name] = b"".join(contents)
                contents = iter([bytearray(documents.contents[header.name])])
            documents.digests[header.name] = hex_part(write_blocks(contents, DigestWriter()).digest)
    if (digester.digest, digester.size) != (f"sha256:{expected.sha256}", expected.size):
        raise BundleError(f"{where}: digest or size differs from {PACK_FILE}")
    if missing := sorted(set(required_names) - documents.contents.keys()):
        raise BundleError(f"{where}: {missing[0]} is missing or too large")
    return documents


def _tar_blocks(files: Mapping[str, Path], epoch: int) -> Iterator[Block]:
    first = [name for name in _SIMILAR_FILES if name in files]
    for name in [*first, *sorted(files.keys() - set(first))]:
        size = files[name].stat().st_size
        yield format_tar_header(name, size, epoch)
        with files[name].open("rb") as file:
            yield from read_file_blocks(file)
        yield bytes(padding_size(size))
    yield bytes(2 * SECTOR_BYTES)
