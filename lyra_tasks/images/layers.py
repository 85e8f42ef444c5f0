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

from lyra_tasks.errors import NoSpaceError, is_full
from lyra_tasks.images.cache import CacheMissError, KnownLayer, LayerCache
from lyra_tasks.images.codec import Codec, Compression, Digester, Writable, codec_of, compress, digest, measure, unpack
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.stage import Block, Stage
from lyra_tasks.images.tarball import BLOCK

_MEDIA_TYPES: dict[Codec, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


@dataclass(frozen=True)
class SpooledLayer:
    """A layer in the spool; `fresh` where its blob was compressed just now, and nobody has unpacked it yet."""

    layer: Layer
    fresh: bool


def spool_layer(
    blocks: Iterator[Block],
    spool: Path,
    compression: Compression,
    where: str,
    *,
    size: int = 0,
    claimed: str = "",
    cache: LayerCache | None = None,
) -> SpooledLayer:
    """Read one layer into `spool`, as a file named by its digest, with bounded memory.

    A blob that every engine in question reads (gzip always, zstd where `compression` is zstd) is kept byte for byte;
    anything else is compressed. What `cache` knows of a layer of `size` bytes, or of a blob that is `claimed` to have a
    digest, is not done again. BundleError naming `where` if the data is damaged, NoSpaceError if the disk is full,
    CacheMissError if it must be read again without the cache.
    """
    first = next(blocks, b"")
    codec = codec_of(first)
    if cache and codec == "none" and (known := cache.compressed(first, size, compression)):
        return SpooledLayer(_known(chain([first], blocks), spool, cache, known), fresh=False)
    kept = codec in {"gzip", compression}
    proven = cache.unpacked(claimed) if cache and kept else None
    packing = _write if kept else partial(_recompress, codec=codec, compression=compression, where=where)
    with room_for(spool), tempfile.NamedTemporaryFile(dir=spool, delete=False) as file:
        try:
            if proven:
                blob, content = _write(chain([first], blocks), file=file), None
            else:
                blob, content = _both(chain([first], blocks), partial(packing, file=file), codec, where)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(blob_path(spool, blob.digest))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    if proven and blob.digest == proven.digest:
        return SpooledLayer(proven, fresh=False)
    if content is None:  # a blob of another name than its own
        with blob_path(spool, blob.digest).open("rb") as file:
            content = measure(iter(partial(file.read, BLOCK), b""), codec, where)
    media_type = _MEDIA_TYPES[codec if kept else compression]
    layer = Layer(media_type, blob.digest, blob.size, content.digest, content.size)
    if cache:
        cache.note(layer, *(() if kept else (first, compression)))
    return SpooledLayer(layer, fresh=not kept)


def _known(blocks: Iterator[Block], spool: Path, cache: LayerCache, known: KnownLayer) -> Layer:
    """Read a layer that was compressed before, and hash it while another thread hashes the blob."""
    with room_for(spool), ThreadPoolExecutor(1) as pool:
        taken = pool.submit(cache.take, known, blob_path(spool, known.digest))
        content = digest(blocks, Digester())
        if not taken.result() or content.digest != known.diff_id:
            raise CacheMissError
    return known.layer


def _both(
    blocks: Iterator[Block], packing: Callable[[Iterator[Block]], Digester], codec: Codec, where: str
) -> tuple[Digester, Digester]:
    """The blob, written by `packing`, and what is in it, measured at the same time."""
    with Stage(packing) as packer, Stage(partial(measure, codec=codec, where=where)) as meter:
        for block in blocks:
            meter.put(block)
            packer.put(block)
        return packer.finish(), meter.finish()


def blob_path(spool: Path, digest: str) -> Path:
    """Where the spool keeps the blob of this digest."""
    return spool / digest.removeprefix("sha256:")


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Turn a full disk into a NoSpaceError that names the folder and what is left."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        stat = os.statvfs(folder)
        raise NoSpaceError(
            f"no space left in {folder}: {stat.f_bavail * stat.f_frsize} bytes are free",
            hint="free space there, then run the same word again",
        ) from error


def _write(blocks: Iterator[Block], *, file: Writable) -> Digester:
    return digest(blocks, Digester(file))


def _recompress(
    blocks: Iterator[Block], *, file: Writable, codec: Codec, compression: Compression, where: str
) -> Digester:
    target = Digester(file)
    compress(unpack(blocks, codec, where), compression, target)
    return target
