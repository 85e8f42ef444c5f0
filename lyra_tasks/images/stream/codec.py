"""Compressing and unpacking layers as streams: gzip through isal, zstd through libzstd, the same bytes every time."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

from lyra_tasks.errors import BundleError
from lyra_tasks.images.stream.pipeline import Block, PipelineStep
from lyra_tasks.images.stream.tar import BlockReader

Compression = Literal["gzip", "zstd"]
Codec = Literal["none", "gzip", "zstd"]

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_ZSTD_JOB_BYTES = 2 * 1024**2
_THREADS = 2
_INPUT_BYTES = 64 * 1024
_OUTPUT_BYTES = 1024**2
_MAX_WINDOW_LOG = 25

_MAGIC: dict[bytes, Codec] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Decoder(Protocol):
    """What the decompressors of isal and zstd have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Writable(Protocol):
    """What a digester needs of a file."""

    def write(self, data: Any, /) -> object: ...


class DigestWriter:
    """A file to write to, of which the digest and the number of bytes are kept; without a file it only counts."""

    def __init__(self, file: Writable | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """`sha256:…` of what was written."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: Block | memoryview) -> int:
        """Take some bytes; their number."""
        if self._file:
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The file belongs to whoever opened it."""


def detect_codec(start: Block) -> Codec:
    """How a blob is compressed, by its first bytes."""
    return next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), "none")


def compress_blocks(blocks: Iterable[Block], compression: Compression, target: DigestWriter) -> None:
    """Write the blocks compressed to `target`; the result depends on what they hold together and how they are cut."""
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
    with _import_isal("igzip_threaded").open(
        target, "wb", compresslevel=_GZIP_LEVEL, threads=_THREADS, block_size=_OUTPUT_BYTES
    ) as encoder:
        pieces = BlockReader(blocks)
        while piece := pieces.read(_OUTPUT_BYTES):
            encoder.raw.write(piece)  # which takes bytes as they are, where the buffer before it copies them


def write_blocks(blocks: Iterable[Block], target: DigestWriter) -> DigestWriter:
    """Give all the blocks to `target`, and return it."""
    for block in blocks:
        target.write(block)
    return target


def measure_unpacked(
    blocks: Iterable[Block],
    codec: Codec,
    where: str,
    limit: int | None = None,
    inspect: Callable[[Iterator[Block]], object] | None = None,
) -> DigestWriter:
    """Digest and size of what the blocks unpack to, hashed in a thread of its own; errors and limit as `unpack`.

    `look` is given the unpacked pieces as they come, and must not change them.
    """
    with PipelineStep(lambda pieces: write_blocks(pieces, DigestWriter())) as hasher:
        pieces = _tee(decompress_blocks(blocks, codec, where, limit), hasher)
        if inspect:
            inspect(pieces)
        for _ in pieces:
            pass
        return hasher.finish()


def _tee(pieces: Iterable[Block], stage: PipelineStep[DigestWriter]) -> Iterator[Block]:
    for piece in pieces:
        stage.put(piece)
        yield piece


def decompress_blocks(blocks: Iterable[Block], codec: Codec, where: str, limit: int | None = None) -> Iterator[Block]:
    """What the blocks unpack to, in pieces of at most 1 MiB.

    BundleError naming `where` if they are damaged, incomplete, or hold more than `limit` bytes.
    """
    pieces = blocks if codec == "none" else _decode(blocks, codec, where)
    total = 0
    for piece in pieces:
        total += len(piece)
        if limit is not None and total > limit:
            raise BundleError(f"{where}: unpacks to more than the {limit} bytes it may hold")
        yield piece


def _decode(blocks: Iterable[Block], codec: Codec, where: str) -> Iterator[bytes]:
    decoder: Decoder | None = None
    error: type[Exception] = _import_zstd().ZstdError if codec == "zstd" else _import_isal("igzip_lib").error
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
        raise BundleError(f"{where}: {codec} data that ends too early")


def _slices(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Small pieces of input: a layer of many gzip members copies what follows each of them once per member."""
    for block in blocks:
        for start in range(0, len(block), _INPUT_BYTES):
            yield bytes(memoryview(block)[start : start + _INPUT_BYTES])


def _create_decoder(codec: Codec) -> Decoder:
    if codec == "zstd":
        zstd = _import_zstd()
        decoder: Decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
        return decoder
    isal = _import_isal("igzip_lib")
    gzip: Decoder = isal.IgzipDecompressor(flag=isal.DECOMP_GZIP)
    return gzip


def _import_isal(module: str) -> Any:
    return importlib.import_module(f"isal.{module}")


def _import_zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
