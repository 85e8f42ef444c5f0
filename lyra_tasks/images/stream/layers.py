"""Spool one layer: hash it, and compress or unpack it while it arrives."""

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

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import BundleError, disk_full_error, is_disk_full
from lyra_tasks.images.oci import Layer
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
from lyra_tasks.images.stream.packages import LayerPackages, read_layer_packages
from lyra_tasks.images.stream.pipeline import Block, PipelineStep
from lyra_tasks.images.stream.tar import BLOCK_BYTES

_MEDIA_TYPES: dict[Codec, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


@dataclass(frozen=True)
class SpooledLayer:
    """A layer in the spool.

    It is unverified if its blob was just compressed and not yet unpacked again. `packages` are the packages in it, if
    they were requested and the layer was unpacked.
    """

    layer: Layer
    is_unverified: bool
    packages: LayerPackages | None = None


@dataclass(frozen=True)
class Spool:
    """The directory for layers, their compression and the cache.

    With `read_packages`, packages are read while a layer is unpacked. With `verified_later`, the caller unpacks and
    verifies the layers that are compressed here; until then, a layer is assumed to have the digest in its name.
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

    A gzip layer, and a zstd layer if that is the compression, is kept byte for byte; any other is compressed. The cache
    saves work for a layer of `size` bytes and for a blob with `claimed_digest`.

    Raises:
        BundleError: The data is damaged; the message names `where`.
        NoSpaceError: The disk is full.
        CacheMissError: The layer must be read again without the cache.
    """
    cache, directory = spool.cache, spool.directory
    first = next(blocks, b"")
    codec = detect_codec(first)
    if cache and codec == "none" and (cached_layer := cache.find_compressed(first, size, spool.compression)):
        return SpooledLayer(_use_cached(chain([first], blocks), directory, cache, cached_layer), is_unverified=False)
    is_kept = codec in {"gzip", spool.compression}
    verified_layer = cache.find_unpacked(claimed_digest) if cache and is_kept else None
    recompress = partial(_recompress, codec=codec, compression=spool.compression, where=where)
    write_blob = _write_blob if is_kept else recompress
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
    if content is None:  # the blob does not have the digest in its name
        with blob_path(directory, blob.digest).open("rb") as file:
            content = measure_content(_read_blocks(file))
    layer = _create_layer(codec if is_kept else spool.compression, blob, content)
    if cache:
        cache.remember(layer, *(() if is_kept else (first, spool.compression)))
    return SpooledLayer(layer, is_unverified=not is_kept, packages=inspector.packages if inspector else None)


def adopt_layer(digest: str, spool: Spool, where: str) -> SpooledLayer:
    """Use a blob that is already in the spool, named by its digest, as a layer; otherwise like `spool_layer`.

    Raises:
        BundleError: The blob does not have this digest.
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
        raise BundleError(f"{where}: does not have the digest in its name")
    layer = _create_layer(codec, blob, content)
    if cache:
        cache.remember(layer)
    return SpooledLayer(layer, is_unverified=False, packages=inspector.packages if inspector else None)


@dataclass(frozen=True)
class _ClaimedContent:
    """The digest and size that a layer is assumed to have; like a `DigestWriter` of its content."""

    digest: str
    size: int


class _PackageReader:
    """Reads the packages of a layer while it is unpacked."""

    def __init__(self, where: str) -> None:
        self.packages: LayerPackages | None = None
        self._where = where

    def __call__(self, pieces: Iterator[Block]) -> None:
        self.packages = read_layer_packages(pieces, self._where)


def _trust_claim(blocks: Iterator[Block], claim: _ClaimedContent, inspector: _PackageReader | None) -> _ClaimedContent:
    """Return the claim without measuring the blocks."""
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
    """Use the cached blob of a layer: hash the layer while another thread hashes the blob."""
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
    """Write the blob and measure its content at the same time."""
    with PipelineStep(write_blob) as writer, PipelineStep(measure_content) as measurer:
        for block in blocks:
            measurer.put(block)
            writer.put(block)
        return writer.finish(), measurer.finish()


def blob_path(spool: Path, digest: str) -> Path:
    """Return the path of a blob in the spool."""
    return spool / hex_part(digest)


@contextmanager
def translate_disk_full(directory: Path) -> Iterator[None]:
    """Translate the error of a full disk to a NoSpaceError that names the directory."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full_error(directory) from error


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
