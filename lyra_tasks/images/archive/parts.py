"""Files in parts of a limited size, which are read as one file."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, cast

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import UsageError, name_unreadable_file
from lyra_tasks.images.stream.codec import DigestWriter, decompress_blocks, detect_codec, read_file_blocks
from lyra_tasks.images.stream.layers import translate_disk_full
from lyra_tasks.images.stream.tar import BLOCK_BYTES

MAX_PARTS = 999
MAX_COMPRESSED_BYTES = 1024**2
"""The size of an archive that may be compressed as a whole, before that: one of little more than documents."""


def part_name(name: str, number: int) -> str:
    """Return the name of a part, counted from 1; names sort in the order of the parts."""
    return f"{name}.{number:03}"


class PartsWriter:
    """A new file at `path`, or at most `MAX_PARTS` parts of it, of at most `split` bytes, next to it."""

    def __init__(self, path: Path, split: int | None) -> None:
        self._path = path
        self._split = split
        self._file: BinaryIO | None = None
        self._remaining = 0
        self._count = 0
        self.digester = DigestWriter(self)
        """The writer to use, which hashes and passes on to `write`."""

    @property
    def parts(self) -> int:
        """Return the number of parts, or 0 for a single file."""
        return self._count if self._split else 0

    @property
    def sha256(self) -> str:
        """Return the hexadecimal digest of everything that was written."""
        return hex_part(self.digester.digest)

    @property
    def size(self) -> int:
        """Return the number of bytes that were written."""
        return self.digester.size

    def __enter__(self) -> PartsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._count and kind is None:
            self._open_next_part()
        if self._file:
            with translate_disk_full(self._path.parent):
                self._file.close()

    def write(self, data: Any) -> None:
        """Write to the current part; called by the digester only."""
        view = memoryview(data)
        with translate_disk_full(self._path.parent):
            while view:
                if not self._remaining:
                    self._open_next_part()
                count = min(self._remaining, len(view))
                cast("BinaryIO", self._file).write(view[:count])
                self._remaining -= count
                view = view[count:]

    def _open_next_part(self) -> None:
        if self._file:
            self._file.close()
        if self._count >= MAX_PARTS:
            raise UsageError(f"Cannot split {self._path.name}: over {MAX_PARTS} parts", hint="Use a larger --split")
        self._count += 1
        name = part_name(self._path.name, self._count) if self._split else self._path.name
        self._file = self._path.with_name(name).open("xb")
        self._remaining = self._split or 1 << 62


class _PartFile(io.FileIO):
    """A file whose errors name it: on a damaged medium, any read may fail."""

    def readinto(self, buffer: Any) -> int | None:
        with name_unreadable_file(str(self.name)):
            return super().readinto(buffer)


class _PartsReader(io.RawIOBase):
    """Parts as one seekable file; only one part is open at a time."""

    def __init__(self, parts: Sequence[Path]) -> None:
        super().__init__()
        self._parts = parts
        self._starts = [0, *accumulate(part.stat().st_size for part in parts)]
        self._position = 0
        self._number = -1
        self._file: io.BufferedReader | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._position) - 1
        if self._file is None or number != self._number:
            if self._file:
                self._file.close()
            self._file, self._number = io.BufferedReader(_PartFile(self._parts[number])), number
        file = self._file
        file.seek(self._position - self._starts[number])
        data = file.read(min(len(buffer), self._starts[number + 1] - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file:
            self._file.close()
        super().close()


@contextmanager
def open_parts(parts: Sequence[Path]) -> Iterator[BinaryIO]:
    """Open the parts, in this order, as one file to read."""
    if len(parts) == 1:
        with io.BufferedReader(_PartFile(parts[0]), BLOCK_BYTES) as file:
            yield cast("BinaryIO", file)
    else:
        with io.BufferedReader(_PartsReader(parts), BLOCK_BYTES) as reader:
            yield cast("BinaryIO", reader)


@contextmanager
def open_archive(parts: Sequence[Path], where: str) -> Iterator[BinaryIO]:
    """Open an archive in one or more parts; one that is compressed as a whole is unpacked in memory."""
    with open_parts(parts) as file:
        if detect_codec(file.read(4)) == "none":
            yield file
        else:
            file.seek(0)
            yield io.BytesIO(b"".join(decompress_blocks(read_file_blocks(file), "gzip", where, MAX_COMPRESSED_BYTES)))
