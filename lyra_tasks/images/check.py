"""Reading an archive back: every byte, every digest, every reference, and nothing that should not be there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive import blob_name
from lyra_tasks.images.codec import Digester, codec_of, measure
from lyra_tasks.images.contents import Contents, Member, resolve, scan
from lyra_tasks.images.identity import ImageIdentity
from lyra_tasks.images.parts import joined
from lyra_tasks.images.stage import Stage
from lyra_tasks.images.tarball import BLOCK

_MAX_RATIO = 2000
_LAYERS_AT_ONCE = 2


@dataclass(frozen=True)
class ArchiveContents:
    """What an archive was found to hold; `size` is in bytes, `sha256` the hexadecimal digest of the file itself."""

    config_digest: str
    manifest_digest: str
    platform: str
    diff_ids: tuple[str, ...]
    layer_digests: tuple[str, ...]
    references: tuple[str, ...]
    annotations: dict[str, str] = field(hash=False)
    sha256: str
    size: int


def check_archive(
    path: Path,
    *,
    expected: ImageIdentity | None = None,
    unpack: bool | Collection[str] = True,
    without: Collection[str] = (),
    parts: Sequence[Path] = (),
) -> ArchiveContents:
    """Read all of an archive that `write_archive` made, and return what it holds.

    With `unpack`, every layer, or those of these digests, is unpacked and compared with the diff id in the config; it
    may unpack to what `expected` says, or to 2000 times its size. With `expected`, the image must be that one. The
    layers `without` must not be there; `parts` are what is read where the archive is not in one piece. Memory stays
    bounded. BundleError naming the file and the member if anything is damaged, missing, added or contradictory.
    """
    pieces = list(parts) or [path]
    for piece in pieces:
        if piece.is_symlink() or not piece.is_file():
            raise BundleError(f"{piece}: not a regular file")
    with joined(pieces) as file:
        members = scan(file, str(path))
        contents = resolve(file, members, str(path), without)
        if expected:
            _compare(contents, expected, path)
    known = {layer.digest: layer.unpacked_size for layer in expected.layers} if expected else {}
    pairs = zip(contents.manifest.layers, contents.config.rootfs.diff_ids, strict=True)
    with ThreadPoolExecutor(1 + _LAYERS_AT_ONCE) as pool:
        whole = pool.submit(_file_digest, pieces)
        checks = []
        for digest, diff_id in dict.fromkeys((layer.digest, diff_id) for layer, diff_id in pairs):
            if digest in without:
                continue
            member = members[blob_name(digest)]
            wanted = unpack if isinstance(unpack, bool) else digest in unpack
            limit = known.get(digest, member.size * _MAX_RATIO) if wanted else None
            place = f"{path}: {blob_name(digest)}"
            checks.append(pool.submit(_check_layer, pieces, member, digest, diff_id, place, limit))
        try:
            for each in checks:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return ArchiveContents(
        config_digest=contents.manifest.config.digest,
        manifest_digest=contents.manifest_digest,
        platform=contents.config.platform,
        diff_ids=tuple(contents.config.rootfs.diff_ids),
        layer_digests=tuple(layer.digest for layer in contents.manifest.layers),
        references=contents.references,
        annotations=contents.annotations,
        sha256=whole.result().digest.removeprefix("sha256:"),
        size=whole.result().size,
    )


def _compare(contents: Contents, expected: ImageIdentity, path: Path) -> None:
    facts = {
        "config digest": (contents.manifest.config.digest, expected.config_digest),
        "manifest digest": (contents.manifest_digest, expected.manifest_digest),
        "platform": (contents.config.platform, expected.platform),
        "diff ids": (contents.config.rootfs.diff_ids, list(expected.diff_ids)),
        "layers": ([(layer.digest, layer.size) for layer in contents.manifest.layers], _blobs(expected)),
    }
    wrong = tuple(f"{name}: {found} instead of {wanted}" for name, (found, wanted) in facts.items() if found != wanted)
    if wrong:
        raise BundleError(f"{path}: holds another image than it should", details=wrong)


def _blobs(identity: ImageIdentity) -> list[tuple[str, int]]:
    return [(layer.digest, layer.size) for layer in identity.layers]


def _check_layer(
    pieces: Sequence[Path], member: Member, digest: str, diff_id: str, place: str, limit: int | None
) -> None:
    """Hash a blob while another thread unpacks and hashes what is in it, up to `limit` bytes; None leaves that out."""
    blob = Digester()
    with joined(pieces) as file:
        blocks = _tee(_blocks(file, member, place), blob)
        if limit is None:
            for _ in blocks:
                pass
        else:
            first = next(blocks, b"")
            codec = codec_of(first)
            with Stage(lambda blocks: measure(blocks, codec, place, limit)) as meter:
                for block in chain([first], blocks):
                    meter.put(block)
                content = meter.finish()
            if content.digest != diff_id:
                raise BundleError(f"{place}: unpacks to {content.digest}, and the config says {diff_id}")
    if blob.digest != digest:
        raise BundleError(f"{place}: does not have the digest that it is named by")


def _tee(blocks: Iterator[bytes], target: Digester) -> Iterator[bytes]:
    for block in blocks:
        target.write(block)
        yield block


def _blocks(file: BinaryIO, member: Member, place: str) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.size
    while left:
        block = file.read(min(left, BLOCK))
        if not block:
            raise BundleError(f"{place}: ends too early")
        left -= len(block)
        yield block


def _file_digest(parts: Sequence[Path]) -> Digester:
    target = Digester()
    with joined(parts) as file:
        while block := file.read(BLOCK):
            target.write(block)
    return target
