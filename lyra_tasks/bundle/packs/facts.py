"""What a pack depends on, found out: the bundle, whole; the older version, if only what it lacks is to travel."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import file_sums, parse
from lyra_tasks.bundle.manifest import Manifest
from lyra_tasks.bundle.packs.plan import PackFacts, plain
from lyra_tasks.bundle.read import bundle_of, read_manifest, small_file
from lyra_tasks.bundle.staging import free_bytes
from lyra_tasks.config.units import parse_size
from lyra_tasks.errors import BundleError, UsageError

MIN_PART = 64 * 1024


def gather(bundles: Path, version: str, *, to: str, since: str, split: str) -> PackFacts:
    """The facts of a pack; UsageError for what does not exist or makes no sense, BundleError for a damaged bundle."""
    target = Path(to)
    if not to:
        raise UsageError("--to names the folder that the pack is made in", hint="bundle.pack VERSION --to /media/usb")
    if not target.is_dir():
        raise UsageError(f"{to}: no such folder", hint="make it first; is the medium mounted?")
    if target.resolve().is_relative_to(bundles.resolve()):
        raise UsageError(f"{to}: is among the bundles", hint="name a folder elsewhere")
    bundle = bundle_of(bundles, version)
    part = _part_size(split) if split else None
    documents = {
        path.relative_to(bundle).as_posix(): path.stat().st_size
        for path in bundle.rglob("*")
        if path.is_file() and path.relative_to(bundle).parts[0] != layout.IMAGES
    }
    if part and (large := sorted(name for name, size in documents.items() if plain(name) and size > part)):
        raise UsageError(f"--split {split}: {large[0]} is larger, and travels as it is", hint="use a larger --split")
    return PackFacts(
        bundle=bundle,
        manifest=_described(bundle),
        since=_described(bundle_of(bundles, since)) if since else None,
        to=target,
        split=part,
        documents=sum(documents.values()),
        free=free_bytes(target),
    )


def _described(bundle: Path) -> Manifest:
    """The description, if it is the one that was promoted."""
    manifest = read_manifest(bundle)
    sums_file = bundle / layout.CHECKSUMS
    sums = parse(small_file(sums_file), str(sums_file)) if sums_file.is_file() else {}
    if file_sums([bundle / layout.MANIFEST]) != [sums.get(layout.MANIFEST)]:
        raise BundleError(f"{bundle / layout.MANIFEST}: changed", hint="promote the version again, or restore it")
    return manifest


def _part_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"--split {text}: {error}", hint="for example --split 2g") from error
    if size < MIN_PART:
        raise UsageError(f"--split {text}: a part has at least {MIN_PART // 1024}k", hint="for example --split 2g")
    return size
