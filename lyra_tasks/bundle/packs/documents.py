"""`documents.tar.gz`: what of a bundle nobody needs to receive it, compressed together, for who wants to read it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.bundle.packs.document import PackedDocuments
from lyra_tasks.errors import BundleError
from lyra_tasks.images.codec import Digester, unpack
from lyra_tasks.images.documents import MAX_DOCUMENT
from lyra_tasks.images.parts import PartsWriter, joined
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import BLOCK, SECTOR, BlockReader, format_header, members, padding


def write_documents(files: Mapping[str, Path], target: PartsWriter, epoch: int) -> int:
    """Write these files, sorted by name and dated `epoch`; the size of the tar before it was compressed, in bytes."""
    counted = 0
    encoder = zlib.compressobj(9, wbits=31)  # text that is read once: small counts, speed does not
    for block in _tar(files, epoch):
        counted += len(block)
        target.digester.write(encoder.compress(block))
    target.digester.write(encoder.flush())
    return counted


_MAX_FILES = 20_000


@dataclass(frozen=True)
class Documents:
    """The hexadecimal digest of every file by its name, and the content of those that were asked for."""

    digests: dict[str, str]
    contents: dict[str, bytes]


def read_documents(parts: Sequence[Path], described: PackedDocuments, where: str, wanted: Collection[str]) -> Documents:
    """Read all of it.

    BundleError naming `where` for anything but regular files, a name that is there twice, a `wanted` file that is
    missing, or other bytes than were described.
    """
    found = Documents({}, {})
    whole = Digester()
    with joined(parts) as file:
        pieces = unpack(_blocks(file, whole), "gzip", where, described.unpacked_size)
        for header, contents in members(BlockReader(pieces), where):
            if header.kind != "file":
                raise BundleError(f"{where}: {header.name!r} is not a regular file")
            if len(found.digests) >= _MAX_FILES:
                raise BundleError(f"{where}: holds more than {_MAX_FILES} files, which is not believable")
            if header.name in found.digests:
                raise BundleError(f"{where}: {header.name} is there twice")
            if header.name in wanted and header.size <= MAX_DOCUMENT:
                found.contents[header.name] = b"".join(contents)
                contents = iter([bytearray(found.contents[header.name])])
            found.digests[header.name] = _digest(contents)
    if (whole.digest, whole.size) != (f"sha256:{described.sha256}", described.size):
        raise BundleError(f"{where}: the pack gives it another digest or size")
    if missing := sorted(set(wanted) - found.contents.keys()):
        raise BundleError(f"{where}: {missing[0]} is missing, or too large")
    return found


def _tar(files: Mapping[str, Path], epoch: int) -> Iterator[bytes]:
    for name in sorted(files):
        size = files[name].stat().st_size
        yield format_header(name, size, epoch)
        with files[name].open("rb") as file:
            while block := file.read(BLOCK):
                yield block
        yield bytes(padding(size))
    yield bytes(2 * SECTOR)


def _blocks(file: BinaryIO, target: Digester) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        target.write(block)
        yield block


def _digest(contents: Iterable[Block]) -> str:
    digest = hashlib.sha256()
    for block in contents:
        digest.update(block)
    return digest.hexdigest()
