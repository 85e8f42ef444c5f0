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

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import BundleError, disk_full_error, is_disk_full
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.stream.cache import CachedLayer, CacheMissError, LayerCache
from lyra_tasks.images.stream.codec import (
    Codec,
    Compression,
    DigestWriter,
    PipelineStep,
    Writable,
    compress_blocks,
    decompress_blocks,
    detect_codec,
    measure_unpacked,
    read_file_blocks,
    write_blocks,
)
from lyra_tasks.images.stream.packages import LayerPackages, read_layer_packages
from lyra_tasks.images.stream.tar import Block

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

    With `read_packages`, packages are read while a layer is unpacked. With `verified_later`, the caller hashes all
    blobs, and unpacks those that are compressed here; until then, a layer is assumed to have the digest in its name,
    and so is a blob in the spool that was unpacked before.
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
    saves work for a layer of `size` bytes and for a blob with `claimed_digest`; after a CacheMissError, the layer must
    be read again without it. If the data is damaged, raises a BundleError that names `where`.
    """
    cache, directory = spool.cache, spool.directory
    first = next(blocks, b"")
    codec = detect_codec(first)
    if cache and codec == "none" and (cached_layer := cache.find_compressed(first, size, spool.compression)):
        return SpooledLayer(_use_cached(chain([first], blocks), directory, cache, cached_layer), is_unverified=False)
    is_kept = codec in {"gzip", spool.compression}
    verified_layer = cache.find_unpacked(claimed_digest) if cache and is_kept else None
    measure_content = partial(_measure_content, codec=codec, spool=spool, where=where)
    if claimed_digest and codec == "none" and spool.verified_later:
        measure_content = partial(_trust_claim, digest=claimed_digest, size=size, spool=spool, where=where)
    with translate_disk_full(directory), tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        write_blob = partial(write_blocks, target=DigestWriter(file))
        if not is_kept:
            write_blob = partial(_recompress, file=file, codec=codec, compression=spool.compression, where=where)
        try:
            if verified_layer:
                blob, content = write_blob(chain([first], blocks)), None
            else:
                blob, content = _write_and_measure(chain([first], blocks), write_blob, measure_content)
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
            content = measure_content(read_file_blocks(file))
    layer = describe_layer(codec if is_kept else spool.compression, blob, content.digest, content.size)
    if cache:
        cache.remember(layer, *(() if is_kept else (first, spool.compression)))
    return SpooledLayer(layer, is_unverified=not is_kept, packages=content.packages)


def adopt_layer(digest: str, spool: Spool, where: str) -> SpooledLayer:
    """Use a blob that is already in the spool, named by its digest, as a layer; otherwise like `spool_layer`."""
    with translate_disk_full(spool.directory), blob_path(spool.directory, digest).open("rb") as file:
        codec = detect_codec(file.peek(4))
        if codec not in {"gzip", spool.compression}:
            return spool_layer(read_file_blocks(file), spool, where, claimed_digest=digest)
        layer = spool.cache.find_unpacked(digest) if spool.cache and not spool.read_packages else None
        packages = None
        if layer and spool.verified_later:
            return SpooledLayer(layer, is_unverified=False)
        if layer:
            blob = write_blocks(read_file_blocks(file), DigestWriter())
        else:
            measure_content = partial(_measure_content, codec=codec, spool=spool, where=where)
            hash_blob = partial(write_blocks, target=DigestWriter())
            blob, content = _write_and_measure(read_file_blocks(file), hash_blob, measure_content)
            layer, packages = describe_layer(codec, blob, content.digest, content.size), content.packages
    if blob.digest != digest:
        raise BundleError(f"{where}: does not have the digest in its name")
    if spool.cache:
        spool.cache.remember(layer)
    return SpooledLayer(layer, is_unverified=False, packages=packages)


@dataclass(frozen=True)
class _Content:
    """The uncompressed content of a layer, with its packages if the spool asks for them."""

    digest: str
    size: int
    packages: LayerPackages | None


def _measure_content(blocks: Iterator[Block], codec: Codec, spool: Spool, where: str) -> _Content:
    packages: list[LayerPackages] = []
    inspect = (lambda pieces: packages.append(read_layer_packages(pieces, where))) if spool.read_packages else None
    content = measure_unpacked(blocks, codec, where, inspect=inspect)
    return _Content(content.digest, content.size, packages[0] if packages else None)


def _trust_claim(blocks: Iterator[Block], digest: str, size: int, spool: Spool, where: str) -> _Content:
    return _Content(digest, size, read_layer_packages(blocks, where) if spool.read_packages else None)


def describe_layer(codec: Codec, blob: DigestWriter, diff_id: str, unpacked_size: int) -> Layer:
    """Return the layer that a compressed blob is."""
    return Layer(_MEDIA_TYPES[codec], blob.digest, blob.size, diff_id, unpacked_size)


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
    measure_content: Callable[[Iterator[Block]], _Content],
) -> tuple[DigestWriter, _Content]:
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


def _recompress(
    blocks: Iterator[Block], file: Writable, codec: Codec, compression: Compression, where: str
) -> DigestWriter:
    target = DigestWriter(file)
    compress_blocks(decompress_blocks(blocks, codec, where), compression, target)
    return target
