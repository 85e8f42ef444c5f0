"""Collect the facts of a pack and plan it: which layers of which archives, in which directory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.bundle.format.checksums import read_checksums
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, IMAGES_DIRECTORY, MANIFEST_FILE, SUMMARY_FILE
from lyra_tasks.bundle.format.manifest import (
    Bundle,
    BundledArchive,
    BundledImage,
    Manifest,
    OtherFormatError,
    open_bundle,
)
from lyra_tasks.bundle.format.pack import RequiredImage, is_operator_file
from lyra_tasks.digests import file_sha256
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.units import parse_size

MIN_PART_BYTES = 64 * 1024


@dataclass(frozen=True)
class PackFacts:
    """The facts of a pack; `baseline` is the manifest of the version whose layers are omitted. Sizes are in bytes."""

    bundle: Bundle
    baseline: Manifest | None
    target_directory: Path
    max_part_bytes: int | None
    documents_size: int
    free_bytes: int


@dataclass(frozen=True)
class PlannedDelta:
    """An archive without layers that `required_images` have; `size` is that of the rest, in bytes."""

    archive: BundledArchive
    omitted_layers: tuple[str, ...]
    required_images: tuple[RequiredImage, ...]
    size: int


@dataclass(frozen=True)
class PackPlan:
    """The pack to be created in `directory`."""

    facts: PackFacts
    directory: Path
    deltas: tuple[PlannedDelta, ...]

    @property
    def required_bytes(self) -> int:
        """Return the maximum size of the pack in bytes."""
        return self.facts.documents_size + sum(delta.size for delta in self.deltas)


def collect_pack_facts(store: BundleStore, version: str, *, to: str, since: str, split: str) -> PackFacts:
    """Collect the facts of a pack; raise UsageError for an invalid option, BundleError for a damaged bundle."""
    target = Path(to)
    if not to:
        raise UsageError("--to DIRECTORY is required", hint="Example: `bundle.pack VERSION --to /media/usb`")
    if not target.is_dir():
        raise UsageError(f"--to {to}: directory not found", hint="Create the directory, or mount the medium")
    if target.resolve().is_relative_to(store.directory.resolve()):
        raise UsageError(f"--to {to}: is in the promotion directory", hint="Choose another directory")
    directory = store.find(version)
    max_part_bytes = _parse_part_size(split) if split else None
    document_sizes = {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).parts[0] != IMAGES_DIRECTORY
    }
    for name, size in sorted(document_sizes.items()):
        if max_part_bytes and size > max_part_bytes and (is_operator_file(name) or name == SUMMARY_FILE):
            raise UsageError(f"--split {split}: {name} is larger and cannot be split", hint="Use a larger --split")
    return PackFacts(
        bundle=_open_promoted(directory),
        baseline=_read_baseline(store.find(since)) if since else None,
        target_directory=target,
        max_part_bytes=max_part_bytes,
        documents_size=sum(document_sizes.values()),
        free_bytes=shutil.disk_usage(target).free,
    )


def plan_pack(facts: PackFacts) -> PackPlan:
    """Plan a pack that omits the layers which an image of the baseline begins with, too.

    Only the lowest layers can be omitted: an engine identifies a layer together with all layers below it.
    """
    manifest, baseline = facts.bundle.manifest, facts.baseline
    if baseline and baseline.version == manifest.version:
        raise UsageError(f"--since {baseline.version}: same version", hint="Name the version that the receiver has")
    name = f"{manifest.project}-{manifest.version}" + (f"-since-{baseline.version}" if baseline else "")
    deltas = tuple(_plan_delta(manifest, archive, baseline) for archive in manifest.archives)
    return PackPlan(facts, facts.target_directory / name, deltas)


def _plan_delta(manifest: Manifest, archive: BundledArchive, baseline: Manifest | None) -> PlannedDelta:
    """Plan an archive without the layers that only occur where an image of the baseline has them, too."""
    images = manifest.images_for(archive.platform)
    candidates = baseline.images_for(archive.platform) if baseline else []
    shared_layers: dict[str, int] = {}
    packed_layers: set[str] = set()
    bases = []
    for image in images:
        base, count = _find_base(image, candidates)
        bases.append((base, {layer.digest for layer in image.layers[:count]}))
        shared_layers |= {layer.digest: layer.size for layer in image.layers[:count]}
        # A layer may occur several times but is one blob, which is packed if it also occurs above.
        packed_layers |= {layer.digest for layer in image.layers[count:]}
    omitted_layers = {digest: size for digest, size in shared_layers.items() if digest not in packed_layers}
    required_images = {
        RequiredImage(
            reference=base.references[0], config_digest=base.config_digest, manifest_digest=base.manifest_digest
        ): None
        for base, digests in bases
        if base and digests & omitted_layers.keys()
    }
    size = archive.size - sum(omitted_layers.values())
    return PlannedDelta(archive, tuple(omitted_layers), tuple(required_images), size)


def _find_base(image: BundledImage, candidates: Sequence[BundledImage]) -> tuple[BundledImage | None, int]:
    """Return the image that shares most of the lowest layers, and their number; one of the same name comes first."""
    counts = [(_count_shared_layers(image, candidate), candidate) for candidate in candidates]
    count, base = max(counts, key=lambda item: (item[0], item[1].name == image.name), default=(0, None))
    return base, count


def _count_shared_layers(image: BundledImage, baseline: BundledImage) -> int:
    """Count the lowest layers that are equal in content and compression."""
    pairs = zip(image.identity.layers, baseline.identity.layers, strict=False)
    matches = ((layer.diff_id, layer.digest) == (other.diff_id, other.digest) for layer, other in pairs)
    return sum(takewhile(bool, matches))


def _read_baseline(directory: Path) -> Manifest | None:
    """Return the manifest of the older version, or None with a warning if it has another format."""
    try:
        return _open_promoted(directory).manifest
    except OtherFormatError as error:
        console.warn(f"The pack will be complete, since no layers can be compared: {error.message}")
        return None


def _open_promoted(directory: Path) -> Bundle:
    """Open a bundle whose manifest matches its checksum."""
    bundle = open_bundle(directory)
    manifest_file = directory / MANIFEST_FILE
    sums = read_checksums(directory) if (directory / CHECKSUMS_FILE).is_file() else {}
    if file_sha256(manifest_file) != sums.get(MANIFEST_FILE):
        raise BundleError(f"{manifest_file}: changed", hint="Restore the bundle, or promote the version again")
    return bundle


def _parse_part_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"--split {text}: {error}", hint="Example: `--split 2g`") from error
    if size < MIN_PART_BYTES:
        raise UsageError(f"--split {text}: less than {MIN_PART_BYTES // 1024}k", hint="Example: `--split 2g`")
    return size
