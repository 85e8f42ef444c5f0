"""Archives without the layers that the receiver holds already: an engine loads them as if nothing were missing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive import blob_name
from lyra_tasks.images.contents import scan
from lyra_tasks.images.parts import PartsWriter
from lyra_tasks.images.tarball import BLOCK, SECTOR, padding


def copy_without(archive: Path, target: PartsWriter, without: Collection[str]) -> None:
    """Copy all members of an archive but the blobs of these digests, byte for byte and in the same order.

    BundleError naming the archive if it is damaged or does not hold one of them.
    """
    with archive.open("rb") as source:
        members = scan(source, str(archive))
        left_out = {blob_name(digest) for digest in without}
        if missing := sorted(left_out - members.keys()):
            raise BundleError(f"{archive}: {missing[0]} is missing")
        for name, member in members.items():
            if name not in left_out:
                source.seek(member.offset - SECTOR)
                left = SECTOR + member.size + padding(member.size)
                while left:
                    block = source.read(min(left, BLOCK))
                    if not block:
                        raise BundleError(f"{archive}: ends too early")
                    target.digester.write(block)
                    left -= len(block)
        target.digester.write(bytes(2 * SECTOR))
