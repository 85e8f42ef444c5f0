"""Collect the facts of a pack and plan it: which layers of which archives, in which directory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lyra_tasks.bundle.format.checksums import read_checksums
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, IMAGES_DIRECTORY, MANIFEST_FILE
from lyra_tasks.bundle.format.manifest import Bundle, BundledImage, Manifest, open_bundle
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
    """An archive without its lowest layers, which `required_image` has; `size` is that of the rest, in bytes."""

    image: BundledImage
    omitted_layers: tuple[str, ...]
    required_image: RequiredImage | None
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
        if max_part_bytes and size > max_part_bytes and is_operator_file(name):
            raise UsageError(f"--split {split}: {name} is larger and cannot be split", hint="Use a larger --split")
    return PackFacts(
        bundle=_open_promoted(directory),
        baseline=_open_promoted(store.find(since)).manifest if since else None,
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
    deltas = tuple(_plan_delta(image, baseline.images if baseline else ()) for image in manifest.images)
    return PackPlan(facts, facts.target_directory / name, deltas)


def _plan_delta(image: BundledImage, baseline_images: Sequence[BundledImage]) -> PlannedDelta:
    candidates = [candidate for candidate in baseline_images if candidate.platform == image.platform]
    best = max(
        candidates,
        key=lambda candidate: (_count_shared_layers(image, candidate), candidate.name == image.name),
        default=None,
    )
    count = _count_shared_layers(image, best) if best else 0
    shared_layers = image.layers[:count]
    # A layer may occur twice but is one blob, which is packed if it also occurs above.
    digests_above = {layer.digest for layer in image.layers[count:]}
    omitted_layers = tuple(dict.fromkeys(layer.digest for layer in shared_layers if layer.digest not in digests_above))
    size = image.size - sum(
        {layer.digest: layer.size for layer in shared_layers if layer.digest in omitted_layers}.values()
    )
    if best is None or not omitted_layers:
        return PlannedDelta(image, (), None, image.size)
    required_image = RequiredImage(
        reference=best.references[0], config_digest=best.config_digest, manifest_digest=best.manifest_digest
    )
    return PlannedDelta(image, omitted_layers, required_image, size)


def _count_shared_layers(image: BundledImage, baseline: BundledImage) -> int:
    """Count the lowest layers that are equal in content and compression."""
    pairs = zip(image.identity.layers, baseline.identity.layers, strict=False)
    matches = ((layer.diff_id, layer.digest) == (other.diff_id, other.digest) for layer, other in pairs)
    return sum(takewhile(bool, matches))


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
