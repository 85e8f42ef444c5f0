"""Read tar archives as streams of blocks, and write headers."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from lyra_tasks.errors import BundleError

Block = bytes | bytearray

SECTOR_BYTES = 512
BLOCK_BYTES = 1024**2

_MAX_EXTENSION_BYTES = 64 * 1024
_OCTAL = re.compile(rb"[0-7]*")
_ID = re.compile(r"[0-9]{1,20}$", re.ASCII)
_KINDS: dict[bytes, Literal["file", "directory", "link", "symlink"]] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "symlink",
}


@dataclass(frozen=True)
class TarHeader:
    """The header of a member; `kind` is `other` for devices, pipes and extensions, `mode` has the permission bits."""

    name: str
    size: int
    kind: Literal["file", "directory", "link", "symlink", "other"]
    target: str = ""
    type: bytes = tarfile.REGTYPE
    mode: int = 0
    uid: int = 0
    gid: int = 0


def parse_tar_header(sector: bytes, where: str) -> TarHeader | None:
    """Parse the header in one sector of 512 bytes; None for the zeros at the end, BundleError if it is not valid."""
    if sector == bytes(SECTOR_BYTES):
        return None
    if sum(sector) - sum(sector[148:156]) + 8 * ord(" ") != _parse_number(sector[148:156], where):
        raise BundleError(f"{where}: not a tar archive, or damaged: wrong header checksum")
    name, kind = _decode_field(sector[:100]), sector[156:157]
    if sector[257:263] == b"ustar\0" and sector[345]:
        name = f"{_decode_field(sector[345:500])}/{name}"
    if kind == tarfile.AREGTYPE and name.endswith("/"):
        kind = tarfile.DIRTYPE  # how tar wrote directories before they had a type
    if kind == tarfile.DIRTYPE:
        name = name.rstrip("/")
    size = _parse_number(sector[124:136], where)
    mode, uid, gid = (_parse_number(sector[start : start + 8], where) for start in (100, 108, 116))
    return TarHeader(
        name, size, _KINDS.get(kind, "other"), _decode_field(sector[157:257]), kind, mode & 0o7777, uid, gid
    )


def _decode_field(field: Block) -> str:
    return _decode_name(field.partition(b"\0")[0])


def _decode_name(name: Block) -> str:
    """Decode a name; bytes that are not UTF-8 become escapes."""
    return name.decode("utf-8", "backslashreplace")


def _parse_number(field: Block, where: str) -> int:
    """Parse a number field: octal digits, or binary after a set high bit; never negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not _OCTAL.fullmatch(digits):
        raise BundleError(f"{where}: not a tar archive, or damaged: invalid number in a header")
    return int(digits or b"0", 8)


def format_tar_header(name: str, size: int, mtime: int) -> bytes:
    """Return the header of a regular file with mode 0644; `mtime` is in seconds since 1970."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def padding_size(size: int) -> int:
    """Return the number of bytes that fill the last sector after `size` bytes."""
    return -size % SECTOR_BYTES


class Readable(Protocol):
    """A source of bytes; fewer bytes than requested mean its end."""

    def read(self, size: int, /) -> Block:
        """Read up to `size` bytes."""
        ...

    def skip(self, size: int, /) -> int:
        """Skip up to `size` bytes and return how many."""
        ...


class BlockReader:
    """Reads blocks of any length in pieces of requested lengths."""

    def __init__(self, chunks: Iterable[Block]) -> None:
        self._chunks = iter(chunks)
        self._pending = memoryview(b"")

    def read(self, size: int) -> Block:
        """Return the next `size` bytes, or fewer at the end; a block of exactly this size is not copied."""
        if not self._pending:
            chunk = next(self._chunks, b"")
            if len(chunk) == size:
                return chunk
            self._pending = memoryview(chunk)
        block = bytearray(size)
        view = memoryview(block)
        while view and self._has_more():
            count = min(len(view), len(self._pending))
            view[:count] = self._pending[:count]
            view, self._pending = view[count:], self._pending[count:]
        return block[: size - len(view)] if view else block

    def skip(self, size: int) -> int:
        """Skip `size` bytes and return how many there were."""
        remaining = size
        while remaining and self._has_more():
            count = min(remaining, len(self._pending))
            self._pending = self._pending[count:]
            remaining -= count
        return size - remaining

    def _has_more(self) -> bool:
        """Return whether there are more bytes, and load the next block."""
        while not self._pending:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._pending = memoryview(chunk)
        return True


class _MemberContents(Iterator[Block]):
    """A member's content in blocks of 1 MiB, the last one shorter, however the stream is divided."""

    def __init__(self, source: Readable, size: int, where: str) -> None:
        self._source = source
        self._where = where
        self.remaining = size

    def __next__(self) -> Block:
        if not self.remaining:
            raise StopIteration
        block = _read_exactly(self._source, min(self.remaining, BLOCK_BYTES), self._where)
        self.remaining -= len(block)
        return block


def read_tar_members(source: Readable, where: str) -> Iterator[tuple[TarHeader, Iterator[Block]]]:
    """Yield all members with their contents, in order; contents that are not read are skipped."""
    overrides: dict[str, str] = {}
    while (header := parse_tar_header(bytes(_read_exactly(source, SECTOR_BYTES, where)), where)) is not None:
        if header.type in _EXTENSIONS:
            overrides |= _read_extension(source, header, where)
            continue
        if overrides or header.kind != "file":
            header = _apply_overrides(header, overrides, where)
            overrides = {}
        contents = _MemberContents(source, header.size, where)
        yield header, contents
        unread = contents.remaining + padding_size(header.size)
        _require_complete(source.skip(unread), unread, where)
    while source.skip(BLOCK_BYTES):  # lets the sender finish
        pass


def _read_exactly(source: Readable, size: int, where: str) -> Block:
    block = source.read(size)
    _require_complete(len(block), size, where)
    return block


def _require_complete(count: int, size: int, where: str) -> None:
    if count < size:
        raise BundleError(f"{where}: ends too early")


_EXTENSIONS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}


def _read_extension(source: Readable, header: TarHeader, where: str) -> dict[str, str]:
    """Return the fields that a pax or GNU member sets for the next member: path, linkpath, size, uid, gid."""
    if header.size > _MAX_EXTENSION_BYTES:
        raise BundleError(f"{where}: an extended header of {header.size} bytes is too large")
    data = _read_exactly(source, header.size, where)
    _read_exactly(source, padding_size(header.size), where)
    if header.type == tarfile.XGLTYPE:
        return {}
    if header.type != tarfile.XHDTYPE:
        key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {key: _decode_name(data.rstrip(b"\0"))}
    return dict(_parse_pax_records(data, where))


def _parse_pax_records(data: Block, where: str) -> Iterator[tuple[str, str]]:
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 8 or not len(length) + 3 <= int(length) <= len(data):
            raise BundleError(f"{where}: damaged pax header")
        key, _, value = _decode_name(data[len(length) + 1 : int(length) - 1]).partition("=")
        yield key, value
        data = data[int(length) :]


def _apply_overrides(header: TarHeader, overrides: dict[str, str], where: str) -> TarHeader:
    size = overrides.get("size", str(header.size))
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        raise BundleError(f"{where}: {header.name!r} has no valid size")
    uid, gid = (int(match[0]) if (match := _ID.match(overrides.get(key, ""))) else None for key in ("uid", "gid"))
    return replace(
        header,
        uid=header.uid if uid is None else uid,
        gid=header.gid if gid is None else gid,
        name=overrides.get("path", header.name),
        target=overrides.get("linkpath", header.target),
        size=int(size) if header.kind == "file" else 0,
    )
