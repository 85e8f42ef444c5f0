"""Finish the tar of a root file system by mmdebstrap: without what depends on how and where it was built."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.errors import PreconditionError

PACKAGE_LIST = "lyra-packages"  # the packages of a root file system, in its root directory until the tar is finished
_DEV = "./dev"
_COPY_BYTES = 1 << 20
_CHECKSUM, _DEVICE_NUMBERS = slice(148, 156), slice(329, 345)  # of a header


def finish_tar(tar: Path, epoch: int) -> list[str]:
    """Take the list of packages out of a tar, and leave one empty `/dev` at its end; return the lines of the list.

    An engine would add `/dev` itself; some versions of mmdebstrap write it, others do not.
    """
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        try:
            listing = archive.extractfile(f"./{PACKAGE_LIST}")
        except KeyError:
            listing = None
        if listing is None:
            raise PreconditionError("The root file system has no list of its packages", hint="Retry")
        lines = listing.read().decode(errors="replace").splitlines()
    last = members[-1]
    end = last.offset_data + (-(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if last.isreg() else 0)
    starts = [*(member.offset for member in members), end]
    with tar.open("rb") as source, tar.with_suffix(".new").open("wb") as target:
        for member, start, following in zip(members, starts, starts[1:], strict=False):
            if member.name not in {f"./{PACKAGE_LIST}", _DEV} and not member.name.startswith(f"{_DEV}/"):
                header = member.offset_data - tarfile.BLOCKSIZE  # before it, a longer name may have headers of its own
                _copy_range(source, target, start, header)
                source.seek(header)
                _write_header(target, source.read(tarfile.BLOCKSIZE))
                _copy_range(source, target, member.offset_data, following)
        target.write(bytes(2 * tarfile.BLOCKSIZE))
    tar.with_suffix(".new").replace(tar)
    with tarfile.open(tar, "a") as archive:
        entry = tarfile.TarInfo(_DEV)
        entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, epoch
        archive.addfile(entry)
    return lines


def _write_header(target: BinaryIO, header: bytes) -> None:
    """Write a header; tar 1.35 leaves the numbers of devices empty in those of other files, older ones do not."""
    changed = bytearray(header)
    if not any(changed[_DEVICE_NUMBERS]):
        changed[_DEVICE_NUMBERS] = b"0000000\0" * 2
        changed[_CHECKSUM] = b" " * 8
        changed[_CHECKSUM] = b"%06o\0 " % sum(changed)
    target.write(changed)


def _copy_range(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    remaining = end - start
    while remaining and (data := source.read(min(remaining, _COPY_BYTES))):
        target.write(data)
        remaining -= len(data)
