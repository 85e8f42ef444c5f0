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

from lyra_tasks.errors import BundleError, NoSpaceError, is_full
from lyra_tasks.images.cache import CacheMissError, KnownLayer, LayerCache
from lyra_tasks.images.codec import Codec, Compression, Digester, Writable, codec_of, compress, digest, measure, unpack
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.packages import LayerPackages, read_layer
from lyra_tasks.images.stage import Block, Stage
from lyra_tasks.images.tarball import BLOCK

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
    fresh: bool
    packages: LayerPackages | None = None


@dataclass(frozen=True)
class Spool:
    """The folder that layers go to, how they are compressed there, and what is known of them.

    With `packages`, what a layer says is read off while it is unpacked anyway. With `read_back`, whoever asks unpacks
    afterwards what was compressed here: until then, a layer is believed to have the digest that its name claims.
    """

    folder: Path
    compression: Compression
    cache: LayerCache | None = None
    packages: bool = False
    read_back: bool = False


def spool_layer(blocks: Iterator[Block], spool: Spool, where: str, *, size: int = 0, claimed: str = "") -> SpooledLayer:
    """Read one layer into the spool, as a file named by its digest, with bounded memory.

    A blob that every engine in question reads (gzip always, zstd where that is the compression) is kept byte for byte;
    anything else is compressed. What the cache knows of a layer of `size` bytes, or of a blob that is `claimed` to have
    a digest, is not done again. BundleError naming `where` if the data is damaged, NoSpaceError if the disk is full,
    CacheMissError if it must be read again without the cache.
    """
    cache, folder = spool.cache, spool.folder
    first = next(blocks, b"")
    codec = codec_of(first)
    if cache and codec == "none" and (known := cache.compressed(first, size, spool.compression)):
        return SpooledLayer(_known(chain([first], blocks), folder, cache, known), fresh=False)
    kept = codec in {"gzip", spool.compression}
    proven = cache.unpacked(claimed) if cache and kept else None
    packing = _write if kept else partial(_recompress, codec=codec, compression=spool.compression, where=where)
    look = _Look(where) if spool.packages else None
    meter: Callable[[Iterator[Block]], Digester | _Claim] = partial(measure, codec=codec, where=where, look=look)
    if claimed and codec == "none" and spool.read_back:
        meter = partial(_believe, claim=_Claim(claimed, size), look=look)
    with room_for(folder), tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        try:
            if proven:
                blob, content = _write(chain([first], blocks), file=file), None
            else:
                blob, content = _both(chain([first], blocks), partial(packing, file=file), meter)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(blob_path(folder, blob.digest))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    if proven and blob.digest == proven.digest:
        return SpooledLayer(proven, fresh=False)
    if content is None:  # a blob of another name than its own
        with blob_path(folder, blob.digest).open("rb") as file:
            content = meter(_blocks_of(file))
    layer = _layer(codec if kept else spool.compression, blob, content)
    if cache:
        cache.note(layer, *(() if kept else (first, spool.compression)))
    return SpooledLayer(layer, fresh=not kept, packages=look.found if look else None)


def adopt_layer(digest: str, spool: Spool, where: str) -> SpooledLayer:
    """Take a blob that lies in the spool already, under its own digest, as a layer: as `spool_layer`, without a copy.

    BundleError, too, if it is not what it is named by.
    """
    cache = spool.cache
    with room_for(spool.folder), blob_path(spool.folder, digest).open("rb") as file:
        codec = codec_of(file.peek(4))
        if codec not in {"gzip", spool.compression}:
            return spool_layer(_blocks_of(file), spool, where, claimed=digest)
        look = _Look(where) if spool.packages else None
        blob, content = _both(_blocks_of(file), _hash, partial(measure, codec=codec, where=where, look=look))
    if blob.digest != digest:
        raise BundleError(f"{where}: does not have the digest that it is named by")
    layer = _layer(codec, blob, content)
    if cache:
        cache.note(layer)
    return SpooledLayer(layer, fresh=False, packages=look.found if look else None)


@dataclass(frozen=True)
class _Claim:
    """What a layer is said to hold, by the names of those that measure it."""

    digest: str
    size: int


class _Look:
    """Reads off what a layer says, while its bytes pass by."""

    def __init__(self, where: str) -> None:
        self.found: LayerPackages | None = None
        self._where = where

    def __call__(self, pieces: Iterator[Block]) -> None:
        self.found = read_layer(pieces, self._where)


def _believe(blocks: Iterator[Block], claim: _Claim, look: _Look | None) -> _Claim:
    """Measure nothing, and only look at what passes by."""
    if look:
        look(blocks)
    for _ in blocks:
        pass
    return claim


def _layer(codec: Codec, blob: Digester, content: Digester | _Claim) -> Layer:
    return Layer(_MEDIA_TYPES[codec], blob.digest, blob.size, content.digest, content.size)


def _blocks_of(file: BinaryIO) -> Iterator[Block]:
    return iter(partial(file.read, BLOCK), b"")


def _known(blocks: Iterator[Block], folder: Path, cache: LayerCache, known: KnownLayer) -> Layer:
    """Read a layer that was compressed before, and hash it while another thread hashes the blob."""
    with room_for(folder), ThreadPoolExecutor(1) as pool:
        taken = pool.submit(cache.take, known, blob_path(folder, known.digest))
        content = digest(blocks, Digester())
        if not taken.result() or content.digest != known.diff_id:
            raise CacheMissError
    return known.layer


def _both(
    blocks: Iterator[Block],
    packing: Callable[[Iterator[Block]], Digester],
    meter: Callable[[Iterator[Block]], Digester | _Claim],
) -> tuple[Digester, Digester | _Claim]:
    """The blob, written by `packing`, and what is in it, measured at the same time."""
    with Stage(packing) as packer, Stage(meter) as measured:
        for block in blocks:
            measured.put(block)
            packer.put(block)
        return packer.finish(), measured.finish()


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


def _hash(blocks: Iterator[Block]) -> Digester:
    return digest(blocks, Digester())


def _write(blocks: Iterator[Block], *, file: Writable) -> Digester:
    return digest(blocks, Digester(file))


def _recompress(
    blocks: Iterator[Block], *, file: Writable, codec: Codec, compression: Compression, where: str
) -> Digester:
    target = Digester(file)
    compress(unpack(blocks, codec, where), compression, target)
    return target
