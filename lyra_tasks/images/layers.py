"""One layer from the stream into the spool: hashed, unpacked or compressed while it arrives."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from lyra_tasks.errors import NoSpaceError
from lyra_tasks.images.codec import Codec, Compression, Digester, Writable, codec_of, compress, digest, measure, unpack
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.stage import Block, Stage

_MEDIA_TYPES: dict[Codec, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


def spool_layer(blocks: Iterator[Block], spool: Path, compression: Compression, where: str) -> Layer:
    """Read one layer into `spool`, as a file named by its digest, with bounded memory.

    A blob that every engine in question reads (gzip always, zstd where `compression` is zstd) is kept byte for byte;
    anything else is compressed. BundleError naming `where` if the data is damaged, NoSpaceError if the disk is full.
    """
    first = next(blocks, b"")
    blocks = chain([first], blocks)
    codec = codec_of(first)
    kept = codec in {"gzip", compression}
    with room_for(spool), tempfile.NamedTemporaryFile(dir=spool, delete=False) as file:
        try:
            packing = _write if kept else partial(_recompress, codec=codec, compression=compression, where=where)
            with (
                Stage(partial(packing, file=file)) as packer,
                Stage(partial(measure, codec=codec, where=where)) as meter,
            ):
                for block in blocks:
                    meter.put(block)
                    packer.put(block)
                blob, content = packer.finish(), meter.finish()
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(blob_path(spool, blob.digest))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    media_type = _MEDIA_TYPES[codec if kept else compression]
    return Layer(media_type, blob.digest, blob.size, content.digest, content.size)


def blob_path(spool: Path, digest: str) -> Path:
    """Where the spool keeps the blob of this digest."""
    return spool / digest.removeprefix("sha256:")


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Turn a full disk into a NoSpaceError that names the folder and what is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
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
