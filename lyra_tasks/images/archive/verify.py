"""Verify an image archive: every byte, digest and reference, and that it contains nothing else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import open_parts
from lyra_tasks.images.archive.read import ArchivedImage, Member, read_archive_members, read_archived_image, read_blocks
from lyra_tasks.images.oci import ImageIdentity, blob_name
from lyra_tasks.images.stream.codec import (
    DigestWriter,
    PipelineStep,
    detect_codec,
    measure_unpacked,
    read_file_blocks,
    tee_blocks,
    write_blocks,
)

_MAX_EXPANSION_RATIO = 2000
_MAX_PARALLEL_LAYERS = 2


@dataclass(frozen=True)
class VerifiedArchive(ArchivedImage):
    """The image of a verified archive; `size` (bytes) and `sha256` (hex) are those of the file itself."""

    sha256: str
    size: int


def verify_archive(
    path: Path,
    *,
    expected: ImageIdentity | None = None,
    unpack: bool | Collection[str] = True,
    omitted_layers: Collection[str] = (),
    parts: Sequence[Path] = (),
) -> VerifiedArchive:
    """Read all of an archive, with bounded memory, and return its content.

    `unpack` is whether layers are unpacked and compared with their diff ids, or the digests of those layers. A layer
    may unpack to its size in `expected`, or to 2000 times its own size. Anything damaged, missing, added or
    contradictory is a BundleError. `parts` are those of an archive that is not a single file.
    """
    sources = list(parts) or [path]
    for source in sources:
        if source.is_symlink() or not source.is_file():
            raise BundleError(f"{source}: not a regular file")
    with open_parts(sources) as file:
        members = read_archive_members(file, str(path))
        image = read_archived_image(file, members, str(path), omitted_layers)
        if expected:
            _compare_identity(image, expected, path)
    unpacked_sizes = {layer.digest: layer.unpacked_size for layer in expected.layers} if expected else {}
    pairs = zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True)
    with ThreadPoolExecutor(1 + _MAX_PARALLEL_LAYERS) as pool:
        archive_digest = pool.submit(_digest_parts, sources)
        layer_checks = []
        for digest, diff_id in dict.fromkeys((layer.digest, diff_id) for layer, diff_id in pairs):
            if digest in omitted_layers:
                continue
            member = members[blob_name(digest)]
            is_unpacked = unpack if isinstance(unpack, bool) else digest in unpack
            limit = unpacked_sizes.get(digest, member.size * _MAX_EXPANSION_RATIO) if is_unpacked else None
            place = f"{path}: {blob_name(digest)}"
            layer_checks.append(pool.submit(_verify_layer, sources, member, digest, diff_id, place, limit))
        try:
            for layer_check in layer_checks:
                layer_check.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    blob = archive_digest.result()
    return VerifiedArchive(**vars(image), sha256=hex_part(blob.digest), size=blob.size)


def _compare_identity(image: ArchivedImage, expected: ImageIdentity, path: Path) -> None:
    comparisons = {
        "config digest": (image.config_digest, expected.config_digest),
        "manifest digest": (image.manifest_digest, expected.manifest_digest),
        "platform": (image.platform, expected.platform),
        "diff ids": (image.config.rootfs.diff_ids, list(expected.diff_ids)),
        "layers": (
            [(layer.digest, layer.size) for layer in image.manifest.layers],
            [(layer.digest, layer.size) for layer in expected.layers],
        ),
    }
    mismatches = tuple(
        f"{name}: {actual} instead of {required}"
        for name, (actual, required) in comparisons.items()
        if actual != required
    )
    if mismatches:
        raise BundleError(f"{path}: contains a different image than expected", details=mismatches)


def _verify_layer(
    sources: Sequence[Path], member: Member, digest: str, diff_id: str, place: str, limit: int | None
) -> None:
    """Hash a blob while another thread unpacks and hashes its content, up to `limit` bytes, unless that is None."""
    blob = DigestWriter()
    with open_parts(sources) as file:
        blocks = tee_blocks(read_blocks(file, member.offset, member.size, place), blob.write)
        if limit is None:
            for _ in blocks:
                pass
        else:
            first = next(blocks, b"")
            codec = detect_codec(first)
            with PipelineStep(lambda blocks: measure_unpacked(blocks, codec, place, limit)) as meter:
                for block in chain([first], blocks):
                    meter.put(block)
                content = meter.finish()
            if content.digest != diff_id:
                raise BundleError(f"{place}: unpacks to {content.digest}, but the config says {diff_id}")
    if blob.digest != digest:
        raise BundleError(f"{place}: does not have the digest in its name")


def _digest_parts(parts: Sequence[Path]) -> DigestWriter:
    with open_parts(parts) as file:
        return write_blocks(read_file_blocks(file), DigestWriter())
