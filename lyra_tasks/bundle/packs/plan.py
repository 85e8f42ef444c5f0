"""What will travel, as a value: which layers of which archives, beside which documents, in which folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.bundle.packs.document import Held
from lyra_tasks.errors import UsageError


@dataclass(frozen=True)
class PackFacts:
    """What was found out: the bundle and, with `since`, the older version's description; where the pack goes.

    `split` is the largest size of a part in bytes, or None; `documents` is the size of what is no archive, `free` the
    room at `to`; both in bytes.
    """

    bundle: Path
    manifest: Manifest
    since: Manifest | None
    to: Path
    split: int | None
    documents: int
    free: int


@dataclass(frozen=True)
class PlannedThin:
    """An archive that travels `without` the lowest layers, which `held` has; `size` is what is left, in bytes."""

    image: BundledImage
    without: tuple[str, ...]
    held: Held | None
    size: int


@dataclass(frozen=True)
class PackPlan:
    """A pack to be made at `folder`."""

    facts: PackFacts
    folder: Path
    archives: tuple[PlannedThin, ...]

    @property
    def needed(self) -> int:
        """Bytes that the pack takes at most."""
        return self.facts.documents + sum(each.size for each in self.archives)


def plan(facts: PackFacts) -> PackPlan:
    """Plan a pack: of every image, leave out what some image of the older version begins with, too.

    Only the lowest layers can be left out: an engine knows a layer together with all that is below it.
    """
    manifest, since = facts.manifest, facts.since
    if since and since.version == manifest.version:
        raise UsageError(f"--since names {since.version} itself", hint="name the version that the receiver holds")
    name = f"{manifest.project}-{manifest.version}" + (f"-since-{since.version}" if since else "")
    archives = tuple(_thin(image, since.images if since else ()) for image in manifest.images)
    return PackPlan(facts, facts.to / name, archives)


def _thin(image: BundledImage, older: Sequence[BundledImage]) -> PlannedThin:
    alike = [each for each in older if each.platform == image.platform]
    shared = {each.name: _shared(image, each) for each in alike}
    best = max(alike, key=lambda each: (shared.get(each.name, 0), each.name == image.name), default=None)
    count = shared.get(best.name, 0) if best else 0
    left_out = image.layers[:count]
    # a layer may come twice; it is one blob, and travels if it is also above what is left out
    above = {layer.digest for layer in image.layers[count:]}
    without = tuple(dict.fromkeys(layer.digest for layer in left_out if layer.digest not in above))
    size = image.size - sum({layer.digest: layer.size for layer in left_out if layer.digest in without}.values())
    if best is None or not without:
        return PlannedThin(image, (), None, image.size)
    held = Held(reference=best.references[0], config_digest=best.config_digest, manifest_digest=best.manifest_digest)
    return PlannedThin(image, without, held, size)


def _shared(image: BundledImage, older: BundledImage) -> int:
    """How many of the lowest layers are the same, by what is in them and by how they are compressed."""
    pairs = zip(image.identity.layers, older.identity.layers, strict=False)
    count = 0
    for one, other in pairs:
        if (one.diff_id, one.digest) != (other.diff_id, other.digest):
            break
        count += 1
    return count


def plain(name: str) -> bool:
    """Whether a file of the bundle travels as it is: what an operator needs who has no program to unpack."""
    return name == layout.SUMMARY or (name.startswith("deploy/") and name != layout.ENVIRONMENT)
