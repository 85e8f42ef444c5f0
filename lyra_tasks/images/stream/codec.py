"""Compress and decompress layers as streams, gzip with isal and zstd with libzstd, always to the same bytes.

Hashing, compressing and reading run at the same time, as pipeline steps in threads.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from queue import Queue
from typing import Any, BinaryIO, Generic, Literal, Protocol, TypeVar

from lyra_tasks.console import count_bytes
from lyra_tasks.errors import BundleError
from lyra_tasks.images.stream.tar import BLOCK_BYTES, Block, BlockReader

T = TypeVar("T")
Compression = Literal["gzip", "zstd"]
Codec = Literal["none", "gzip", "zstd"]

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_ZSTD_JOB_BYTES = 2 * 1024**2
_THREADS = 2
_INPUT_BYTES = 64 * 1024
_OUTPUT_BYTES = 1024**2
_MAX_WINDOW_LOG = 25
_QUEUE_LENGTH = 3

_MAGIC: dict[bytes, Codec] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Decoder(Protocol):
    """A decompressor of isal or zstd."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Decompress `data` to at most `max_length` bytes."""
        ...


class Writable(Protocol):
    """A file that can be written to."""

    def write(self, data: Any, /) -> object:
        """Write `data`."""
        ...


class DigestWriter:
    """Writes to a file, if there is one, and keeps digest and size."""

    def __init__(self, file: Writable | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """Return the digest of everything written, as `sha256:…`."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: Block | memoryview) -> int:
        """Write some bytes and return their number."""
        if self._file:
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing, as nothing is buffered."""

    def close(self) -> None:
        """Do nothing: the file is closed where it was opened."""


class PipelineStep(Generic[T]):
    """Runs `consume` in a thread on the blocks given to `put`; leaving the context ends the thread."""

    def __init__(self, consume: Callable[[Iterator[Block]], T]) -> None:
        self._consume = consume
        self._queue: Queue[Block | None] = Queue(_QUEUE_LENGTH)
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PipelineStep[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def put(self, block: Block) -> None:
        """Hand over a block, which must not be changed afterwards; an error of the thread is raised here."""
        if self._error:
            raise self._error
        self._queue.put(block)

    def finish(self) -> T:
        """Return the result of `consume` after the last block; an error of the thread is raised here."""
        self._close()
        if self._error:
            raise self._error
        return self._result[0]

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _blocks(self) -> Iterator[Block]:
        while (block := self._queue.get()) is not None:
            yield block

    def _run(self) -> None:
        blocks = self._blocks()
        try:
            self._result.append(self._consume(blocks))
        except BaseException as error:
            self._error = error
        for _ in blocks:  # a full queue would block the other side forever
            pass


def detect_codec(start: Block) -> Codec:
    """Return the compression of a blob by its first bytes."""
    return next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), "none")


def compress_blocks(blocks: Iterable[Block], compression: Compression, target: DigestWriter) -> None:
    """Compress blocks to `target`; for zstd the result also depends on how the content is divided."""
    if compression == "zstd":
        zstd = _import_zstd()
        option = zstd.CompressionParameter
        encoder = zstd.ZstdCompressor(
            options={
                option.compression_level: _ZSTD_LEVEL,
                option.nb_workers: _THREADS,
                option.job_size: _ZSTD_JOB_BYTES,  # libzstd's own choice costs 60 MiB more memory for 1 % of size
            }
        )
        for block in blocks:
            target.write(encoder.compress(block))
        target.write(encoder.flush())
        return
    with import_module("isal.igzip_threaded").open(
        target, "wb", compresslevel=_GZIP_LEVEL, threads=_THREADS, block_size=_OUTPUT_BYTES
    ) as encoder:
        pieces = BlockReader(blocks)
        while piece := pieces.read(_OUTPUT_BYTES):
            encoder.raw.write(piece)  # not through the buffer, which would copy the bytes


def read_file_blocks(file: BinaryIO) -> Iterator[Block]:
    """Yield the rest of a file in blocks; a live line shows how many bytes were read."""
    for block in iter(partial(file.read, BLOCK_BYTES), b""):
        count_bytes(len(block))
        yield block


def write_blocks(blocks: Iterable[Block], target: DigestWriter) -> DigestWriter:
    """Write all blocks to `target` and return it."""
    for block in blocks:
        target.write(block)
    return target


def tee_blocks(blocks: Iterable[Block], put: Callable[[Block], object]) -> Iterator[Block]:
    """Pass on the blocks, each after `put` got it."""
    for block in blocks:
        put(block)
        yield block


def measure_unpacked(
    blocks: Iterable[Block],
    codec: Codec,
    where: str,
    limit: int | None = None,
    inspect: Callable[[Iterator[Block]], object] | None = None,
) -> DigestWriter:
    """Measure digest and size of the decompressed blocks, in a separate thread.

    `inspect` gets the decompressed pieces as they come and must not change them. Errors and `limit` are those of
    `decompress_blocks`.
    """
    with PipelineStep(lambda pieces: write_blocks(pieces, DigestWriter())) as hasher:
        pieces = tee_blocks(decompress_blocks(blocks, codec, where, limit), hasher.put)
        if inspect:
            inspect(pieces)
        for _ in pieces:
            pass
        return hasher.finish()


def decompress_blocks(blocks: Iterable[Block], codec: Codec, where: str, limit: int | None = None) -> Iterator[Block]:
    """Decompress to pieces of at most 1 MiB; BundleError naming `where` if damaged, incomplete or over `limit`."""
    pieces = blocks if codec == "none" else _decode(blocks, codec, where)
    total = 0
    for piece in pieces:
        total += len(piece)
        if limit is not None and total > limit:
            raise BundleError(f"{where}: unpacks to more than the {limit} bytes allowed")
        yield piece


def _decode(blocks: Iterable[Block], codec: Codec, where: str) -> Iterator[bytes]:
    decoder: Decoder | None = None
    error: type[Exception] = _import_zstd().ZstdError if codec == "zstd" else import_module("isal.igzip_lib").error
    try:
        for pending in _slices(blocks):
            while pending or (decoder and not decoder.needs_input):
                decoder = decoder or _create_decoder(codec)
                piece = decoder.decompress(pending, _OUTPUT_BYTES)
                pending = b""
                if piece:
                    yield piece
                if decoder.eof:
                    pending, decoder = decoder.unused_data, None
    except (error, EOFError) as problem:
        raise BundleError(f"{where}: damaged {codec} data") from problem
    if decoder:
        raise BundleError(f"{where}: {codec} data ends too early")


def _slices(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Yield small pieces: in a layer of many gzip members, each member copies the rest of the piece."""
    for block in blocks:
        for start in range(0, len(block), _INPUT_BYTES):
            yield bytes(memoryview(block)[start : start + _INPUT_BYTES])


def _create_decoder(codec: Codec) -> Decoder:
    if codec == "zstd":
        zstd = _import_zstd()
        decoder: Decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    else:
        isal = import_module("isal.igzip_lib")
        decoder = isal.IgzipDecompressor(flag=isal.DECOMP_GZIP)
    return decoder


def _import_zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
