"""Verify an image archive: every byte, digest and reference, and that it contains nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lyra_tasks.console import escape
from lyra_tasks.digests import hex_part
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import open_archive, open_parts
from lyra_tasks.images.archive.read import (
    ArchivedImage,
    Member,
    read_archive_members,
    read_archived_images,
    read_blocks,
)
from lyra_tasks.images.oci import TAG_ANNOTATION, ImageIdentity, blob_name
from lyra_tasks.images.stream.codec import (
    DigestWriter,
    PipelineStep,
    detect_codec,
    measure_unpacked,
    read_file_blocks,
    tee_blocks,
    write_blocks,
)
from lyra_tasks.references import familiar_reference, normalize_reference

_MAX_EXPANSION_RATIO = 2000
_MAX_PARALLEL_LAYERS = 2


@dataclass(frozen=True)
class ExpectedImage:
    """An image that an archive must contain, under exactly these references."""

    identity: ImageIdentity
    references: Sequence[str]


@dataclass(frozen=True)
class VerifiedArchive:
    """The images of a verified archive; `size` (bytes) and `sha256` (hex) are those of the file itself."""

    images: tuple[ArchivedImage, ...]
    sha256: str
    size: int


def verify_archive(
    path: Path,
    *,
    expected: Sequence[ExpectedImage] = (),
    unpack: bool | Collection[str] = True,
    omitted_layers: Collection[str] = (),
    parts: Sequence[Path] = (),
) -> VerifiedArchive:
    """Read all of an archive, with bounded memory, and return its content; a layer of several images is read once.

    `expected` are all its images, or nothing to accept any. `unpack` is whether layers are unpacked and compared with
    their diff ids, or the digests of those layers. A layer may unpack to its size in `expected`, or to 2000 times its
    own size. Anything damaged, missing, added or contradictory is a BundleError. `parts` are those of an archive that
    is not a single file.
    """
    sources = list(parts) or [path]
    for source in sources:
        if source.is_symlink() or not source.is_file():
            raise BundleError(f"{source}: not a regular file")
    with open_archive(sources, str(path)) as file:
        members = read_archive_members(file, str(path))
        images = read_archived_images(file, members, str(path), omitted_layers)
    if expected and (problems := tuple(_compare_images(images, expected))):
        raise BundleError(f"{path}: contains other images than expected", details=problems)
    unpacked_sizes = {layer.digest: layer.unpacked_size for image in expected for layer in image.identity.layers}
    with ThreadPoolExecutor(1 + _MAX_PARALLEL_LAYERS) as pool:
        archive_digest = pool.submit(_digest_parts, sources)
        layer_checks = []
        for digest, diff_id in _list_layers(images):
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
    return VerifiedArchive(images, hex_part(blob.digest), blob.size)


def _list_layers(images: Sequence[ArchivedImage]) -> list[tuple[str, str]]:
    """Return the layers of all images once, as digest and diff id."""
    pairs = (pair for image in images for pair in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True))
    return list(dict.fromkeys((layer.digest, diff_id) for layer, diff_id in pairs))


def _compare_images(images: Sequence[ArchivedImage], expected: Sequence[ExpectedImage]) -> Iterator[str]:
    """Yield what is different, by the first reference of an image."""
    references_by_digest: dict[str, set[str]] = {}
    for image in expected:
        names = references_by_digest.setdefault(image.identity.manifest_digest, set())
        names |= set(map(normalize_reference, image.references))
    images_by_reference = {reference: image for image in images for reference in image.references}
    for image in expected:
        name = familiar_reference(image.references[0])
        archived = images_by_reference.get(normalize_reference(name))
        if archived is None:
            yield f"{name}: missing"
            continue
        for what, actual, required in _compare_identity(archived, image.identity):
            yield f"{name}: {what}: {actual} instead of {required}"
    for archived in images:
        names = references_by_digest.get(archived.manifest_digest, set())
        if names != set(archived.references):
            yield f"{archived.manifest_digest}: has the references {escape(', '.join(archived.references) or 'none')}"
        for reference in archived.references:
            required, actual = familiar_reference(reference), archived.annotations[reference].get(TAG_ANNOTATION)
            if actual != required:
                yield f"{escape(required)}: {TAG_ANNOTATION} is {escape(actual)}"


def _compare_identity(image: ArchivedImage, expected: ImageIdentity) -> Iterator[tuple[str, object, object]]:
    """Yield what is different, with the actual and the required value."""
    comparisons: dict[str, tuple[object, object]] = {
        "config digest": (image.config_digest, expected.config_digest),
        "manifest digest": (image.manifest_digest, expected.manifest_digest),
        "platform": (image.platform, expected.platform),
        "diff ids": (image.config.rootfs.diff_ids, list(expected.diff_ids)),
        "layers": (
            [(layer.digest, layer.size) for layer in image.manifest.layers],
            [(layer.digest, layer.size) for layer in expected.layers],
        ),
    }
    for name, (actual, required) in comparisons.items():
        if actual != required:
            yield name, actual, required


def _verify_layer(
    sources: Sequence[Path], member: Member, digest: str, diff_id: str, place: str, limit: int | None
) -> None:
    """Hash a blob while another thread unpacks and hashes its content, up to `limit` bytes, unless that is None."""
    blob = DigestWriter()
    with open_archive(sources, place) as file:
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
