"""The versions of a project as they lie on disk, and the list of them: brought together after every promotion.

A run that was killed between the two left a version that is whole and not listed, or one listed that is gone; the next
promotion of any version puts that right.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import BundleEntry, BundleIndex, Manifest, write_document
from lyra_tasks.bundle.read import read_index, read_manifest
from lyra_tasks.errors import BundleError
from lyra_tasks.files import STAGING


def enter(bundles: Path, manifest: Manifest, keep_snapshots: int) -> tuple[str, ...]:
    """List all versions that are there, and drop the oldest snapshots beyond so many; releases always stay.

    The caller holds the lock over `bundles`. Returns what was dropped.
    """
    for left in bundles.glob(f".{layout.INDEX}.*"):  # written by a promotion that was killed before the renaming
        left.unlink()
    there = read_index(bundles, manifest.project)
    index = _as_on_disk(bundles, there).with_entry(_entry(manifest))
    snapshots = [each.version for each in index.versions if each.is_snapshot and each.version != manifest.version]
    old = tuple(snapshots[keep_snapshots - 1 :] if manifest.is_snapshot else ())
    if index.without(*old) != there:
        write_document(bundles / layout.INDEX, index.without(*old))
    for version in old:
        # under a name that is swept, so that a version is never to be seen in part
        aside = bundles / f"{STAGING}{version}.old"
        (bundles / version).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    return old


def _as_on_disk(bundles: Path, index: BundleIndex) -> BundleIndex:
    for entry in index.versions:
        if not (bundles / entry.version).is_dir():
            index = index.without(entry.version)
    listed = {entry.version for entry in index.versions}
    for folder in sorted(bundles.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in listed:
            try:
                manifest = read_manifest(folder)
            except BundleError:
                continue  # what somebody else put there is theirs
            if (manifest.project, manifest.version) == (index.project, folder.name):
                index = index.with_entry(_entry(manifest))
    return index


def _entry(manifest: Manifest) -> BundleEntry:
    return BundleEntry(
        version=manifest.version,
        created=manifest.created,
        commit=manifest.source.commit,
        set_digest=manifest.set_digest,
        is_snapshot=manifest.is_snapshot,
    )
