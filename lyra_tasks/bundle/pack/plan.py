"""What will travel, as a value: which layers of which archives, beside which documents, in which folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle.format.checksums import hash_files, parse_checksums
from lyra_tasks.bundle.format.index import find_bundle, read_manifest, read_small_file
from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    ENVIRONMENT_FILE,
    IMAGES_DIRECTORY,
    MANIFEST_FILE,
    SUMMARY_FILE,
)
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.bundle.format.pack import RequiredImage
from lyra_tasks.bundle.format.staging import free_bytes
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.units import parse_size


@dataclass(frozen=True)
class PackFacts:
    """What was found out: the bundle and, with `since`, the older version's description; where the pack goes.

    `split` is the largest size of a part in bytes, or None; `documents` is the size of what is no archive, `free` the
    room at `to`; both in bytes.
    """

    bundle: Path
    manifest: Manifest
    baseline: Manifest | None
    target_directory: Path
    max_part_bytes: int | None
    documents_size: int
    free_bytes: int


@dataclass(frozen=True)
class PlannedDelta:
    """An archive that travels `without` the lowest layers, which `held` has; `size` is what is left, in bytes."""

    image: BundledImage
    omitted_layers: tuple[str, ...]
    required_image: RequiredImage | None
    size: int


@dataclass(frozen=True)
class PackPlan:
    """A pack to be made at `folder`."""

    facts: PackFacts
    directory: Path
    deltas: tuple[PlannedDelta, ...]

    @property
    def required_bytes(self) -> int:
        """Bytes that the pack takes at most."""
        return self.facts.documents_size + sum(delta.size for delta in self.deltas)


def plan_pack(facts: PackFacts) -> PackPlan:
    """Plan a pack: of every image, leave out what some image of the older version begins with, too.

    Only the lowest layers can be left out: an engine knows a layer together with all that is below it.
    """
    manifest, baseline = facts.manifest, facts.baseline
    if baseline and baseline.version == manifest.version:
        raise UsageError(f"--since names {baseline.version} itself", hint="name the version that the receiver holds")
    name = f"{manifest.project}-{manifest.version}" + (f"-since-{baseline.version}" if baseline else "")
    deltas = tuple(_plan_delta(image, baseline.images if baseline else ()) for image in manifest.images)
    return PackPlan(facts, facts.target_directory / name, deltas)


def _plan_delta(image: BundledImage, baseline_images: Sequence[BundledImage]) -> PlannedDelta:
    candidates = [candidate for candidate in baseline_images if candidate.platform == image.platform]
    shared_counts = {candidate.name: _count_shared_layers(image, candidate) for candidate in candidates}
    best = max(
        candidates,
        key=lambda candidate: (shared_counts.get(candidate.name, 0), candidate.name == image.name),
        default=None,
    )
    count = shared_counts.get(best.name, 0) if best else 0
    shared_layers = image.layers[:count]
    # a layer may come twice; it is one blob, and travels if it is also above what is left out
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
    """How many of the lowest layers are the same, by what is in them and by how they are compressed."""
    pairs = zip(image.identity.layers, baseline.identity.layers, strict=False)
    count = 0
    for layer, baseline_layer in pairs:
        if (layer.diff_id, layer.digest) != (baseline_layer.diff_id, baseline_layer.digest):
            break
        count += 1
    return count


def is_operator_file(name: str) -> bool:
    """Whether a file of the bundle travels as it is: what an operator needs who has no program to unpack."""
    return name == SUMMARY_FILE or (name.startswith("deploy/") and name != ENVIRONMENT_FILE)


MIN_PART_BYTES = 64 * 1024


def collect_pack_facts(bundles: Path, version: str, *, to: str, since: str, split: str) -> PackFacts:
    """The facts of a pack; UsageError for what does not exist or makes no sense, BundleError for a damaged bundle."""
    target = Path(to)
    if not to:
        raise UsageError("--to names the folder that the pack is made in", hint="bundle.pack VERSION --to /media/usb")
    if not target.is_dir():
        raise UsageError(f"{to}: no such folder", hint="make it first; is the medium mounted?")
    if target.resolve().is_relative_to(bundles.resolve()):
        raise UsageError(f"{to}: is among the bundles", hint="name a folder elsewhere")
    bundle = find_bundle(bundles, version)
    max_part_bytes = _parse_part_size(split) if split else None
    document_sizes = {
        path.relative_to(bundle).as_posix(): path.stat().st_size
        for path in bundle.rglob("*")
        if path.is_file() and path.relative_to(bundle).parts[0] != IMAGES_DIRECTORY
    }
    if max_part_bytes and (
        large := sorted(
            name for name, size in document_sizes.items() if is_operator_file(name) and size > max_part_bytes
        )
    ):
        raise UsageError(f"--split {split}: {large[0]} is larger, and travels as it is", hint="use a larger --split")
    return PackFacts(
        bundle=bundle,
        manifest=_read_promoted_manifest(bundle),
        baseline=_read_promoted_manifest(find_bundle(bundles, since)) if since else None,
        target_directory=target,
        max_part_bytes=max_part_bytes,
        documents_size=sum(document_sizes.values()),
        free_bytes=free_bytes(target),
    )


def _read_promoted_manifest(bundle: Path) -> Manifest:
    """The description, if it is the one that was promoted."""
    manifest = read_manifest(bundle)
    sums_file = bundle / CHECKSUMS_FILE
    sums = parse_checksums(read_small_file(sums_file), str(sums_file)) if sums_file.is_file() else {}
    if hash_files([bundle / MANIFEST_FILE]) != [sums.get(MANIFEST_FILE)]:
        raise BundleError(f"{bundle / MANIFEST_FILE}: changed", hint="promote the version again, or restore it")
    return manifest


def _parse_part_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"--split {text}: {error}", hint="for example --split 2g") from error
    if size < MIN_PART_BYTES:
        raise UsageError(
            f"--split {text}: a part has at least {MIN_PART_BYTES // 1024}k", hint="for example --split 2g"
        )
    return size
