"""One layer from the stream into the spool: hashed, unpacked or compressed while it arrives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.errors import BundleError, NoSpaceError, is_disk_full
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.scan.packages import LayerPackages, read_layer_packages
from lyra_tasks.images.stream.cache import CachedLayer, CacheMissError, LayerCache
from lyra_tasks.images.stream.codec import (
    Codec,
    Compression,
    DigestWriter,
    Writable,
    compress_blocks,
    decompress_blocks,
    detect_codec,
    measure_unpacked,
    write_blocks,
)
from lyra_tasks.images.stream.pipeline import Block, PipelineStep
from lyra_tasks.images.stream.tar import BLOCK_BYTES

_MEDIA_TYPES: dict[Codec, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


@dataclass(frozen=True)
class SpooledLayer:
    """A layer in the spool; `fresh` where its blob was compressed just now, and nobody has unpacked it yet.

    `packages` is what it says, where that was asked for and the layer was unpacked on the way.
    """

    layer: Layer
    is_unverified: bool
    packages: LayerPackages | None = None


@dataclass(frozen=True)
class Spool:
    """The folder that layers go to, how they are compressed there, and what is known of them.

    With `packages`, what a layer says is read off while it is unpacked anyway. With `read_back`, whoever asks unpacks
    afterwards what was compressed here: until then, a layer is believed to have the digest that its name claims.
    """

    directory: Path
    compression: Compression
    cache: LayerCache | None = None
    read_packages: bool = False
    verified_later: bool = False


def spool_layer(
    blocks: Iterator[Block], spool: Spool, where: str, *, size: int = 0, claimed_digest: str = ""
) -> SpooledLayer:
    """Read one layer into the spool, as a file named by its digest, with bounded memory.

    A blob that every engine in question reads (gzip always, zstd where that is the compression) is kept byte for byte;
    anything else is compressed. What the cache knows of a layer of `size` bytes, or of a blob that is `claimed` to have
    a digest, is not done again. BundleError naming `where` if the data is damaged, NoSpaceError if the disk is full,
    CacheMissError if it must be read again without the cache.
    """
    cache, directory = spool.cache, spool.directory
    first = next(blocks, b"")
    codec = detect_codec(first)
    if cache and codec == "none" and (cached_layer := cache.find_compressed(first, size, spool.compression)):
        return SpooledLayer(_use_cached(chain([first], blocks), directory, cache, cached_layer), is_unverified=False)
    is_kept = codec in {"gzip", spool.compression}
    verified_layer = cache.find_unpacked(claimed_digest) if cache and is_kept else None
    write_blob = (
        _write_blob if is_kept else partial(_recompress, codec=codec, compression=spool.compression, where=where)
    )
    inspector = _PackageReader(where) if spool.read_packages else None
    measure_content: Callable[[Iterator[Block]], DigestWriter | _ClaimedContent] = partial(
        measure_unpacked, codec=codec, where=where, inspect=inspector
    )
    if claimed_digest and codec == "none" and spool.verified_later:
        measure_content = partial(_trust_claim, claim=_ClaimedContent(claimed_digest, size), inspector=inspector)
    with translate_disk_full(directory), tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        try:
            if verified_layer:
                blob, content = _write_blob(chain([first], blocks), file=file), None
            else:
                blob, content = _write_and_measure(
                    chain([first], blocks), partial(write_blob, file=file), measure_content
                )
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(blob_path(directory, blob.digest))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    if verified_layer and blob.digest == verified_layer.digest:
        return SpooledLayer(verified_layer, is_unverified=False)
    if content is None:  # a blob of another name than its own
        with blob_path(directory, blob.digest).open("rb") as file:
            content = measure_content(_read_blocks(file))
    layer = _create_layer(codec if is_kept else spool.compression, blob, content)
    if cache:
        cache.remember(layer, *(() if is_kept else (first, spool.compression)))
    return SpooledLayer(layer, is_unverified=not is_kept, packages=inspector.packages if inspector else None)


def adopt_layer(digest: str, spool: Spool, where: str) -> SpooledLayer:
    """Take a blob that lies in the spool already, under its own digest, as a layer: as `spool_layer`, without a copy.

    BundleError, too, if it is not what it is named by.
    """
    cache = spool.cache
    with translate_disk_full(spool.directory), blob_path(spool.directory, digest).open("rb") as file:
        codec = detect_codec(file.peek(4))
        if codec not in {"gzip", spool.compression}:
            return spool_layer(_read_blocks(file), spool, where, claimed_digest=digest)
        inspector = _PackageReader(where) if spool.read_packages else None
        blob, content = _write_and_measure(
            _read_blocks(file), _hash_blocks, partial(measure_unpacked, codec=codec, where=where, inspect=inspector)
        )
    if blob.digest != digest:
        raise BundleError(f"{where}: does not have the digest that it is named by")
    layer = _create_layer(codec, blob, content)
    if cache:
        cache.remember(layer)
    return SpooledLayer(layer, is_unverified=False, packages=inspector.packages if inspector else None)


@dataclass(frozen=True)
class _ClaimedContent:
    """What a layer is said to hold, by the names of those that measure it."""

    digest: str
    size: int


class _PackageReader:
    """Reads off what a layer says, while its bytes pass by."""

    def __init__(self, where: str) -> None:
        self.packages: LayerPackages | None = None
        self._where = where

    def __call__(self, pieces: Iterator[Block]) -> None:
        self.packages = read_layer_packages(pieces, self._where)


def _trust_claim(blocks: Iterator[Block], claim: _ClaimedContent, inspector: _PackageReader | None) -> _ClaimedContent:
    """Measure nothing, and only look at what passes by."""
    if inspector:
        inspector(blocks)
    for _ in blocks:
        pass
    return claim


def _create_layer(codec: Codec, blob: DigestWriter, content: DigestWriter | _ClaimedContent) -> Layer:
    return Layer(_MEDIA_TYPES[codec], blob.digest, blob.size, content.digest, content.size)


def _read_blocks(file: BinaryIO) -> Iterator[Block]:
    return iter(partial(file.read, BLOCK_BYTES), b"")


def _use_cached(blocks: Iterator[Block], directory: Path, cache: LayerCache, cached_layer: CachedLayer) -> Layer:
    """Read a layer that was compressed before, and hash it while another thread hashes the blob."""
    with translate_disk_full(directory), ThreadPoolExecutor(1) as pool:
        blob_check = pool.submit(cache.link_verified, cached_layer, blob_path(directory, cached_layer.digest))
        content = write_blocks(blocks, DigestWriter())
        if not blob_check.result() or content.digest != cached_layer.diff_id:
            raise CacheMissError
    return cached_layer.layer


def _write_and_measure(
    blocks: Iterator[Block],
    write_blob: Callable[[Iterator[Block]], DigestWriter],
    measure_content: Callable[[Iterator[Block]], DigestWriter | _ClaimedContent],
) -> tuple[DigestWriter, DigestWriter | _ClaimedContent]:
    """The blob, written by `packing`, and what is in it, measured at the same time."""
    with PipelineStep(write_blob) as writer, PipelineStep(measure_content) as measurer:
        for block in blocks:
            measurer.put(block)
            writer.put(block)
        return writer.finish(), measurer.finish()


def blob_path(spool: Path, digest: str) -> Path:
    """Where the spool keeps the blob of this digest."""
    return spool / digest.removeprefix("sha256:")


@contextmanager
def translate_disk_full(directory: Path) -> Iterator[None]:
    """Turn a full disk into a NoSpaceError that names the folder and what is left."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        stat = os.statvfs(directory)
        raise NoSpaceError(
            f"no space left in {directory}: {stat.f_bavail * stat.f_frsize} bytes are free",
            hint="free space there, then run the same word again",
        ) from error


def _hash_blocks(blocks: Iterator[Block]) -> DigestWriter:
    return write_blocks(blocks, DigestWriter())


def _write_blob(blocks: Iterator[Block], *, file: Writable) -> DigestWriter:
    return write_blocks(blocks, DigestWriter(file))


def _recompress(
    blocks: Iterator[Block], *, file: Writable, codec: Codec, compression: Compression, where: str
) -> DigestWriter:
    target = DigestWriter(file)
    compress_blocks(decompress_blocks(blocks, codec, where), compression, target)
    return target
