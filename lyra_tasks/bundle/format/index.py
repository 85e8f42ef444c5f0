"""The versions of a project as they lie on disk, and the list of them: brought together after every promotion.

A run that was killed between the two left a version that is whole and not listed, or one listed that is gone; the next
promotion of any version puts that right.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.bundle.format.layout import INDEX_FILE, MANIFEST_FILE
from lyra_tasks.bundle.format.manifest import BundleEntry, BundleIndex, Manifest, decode_document, write_document
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.files import STAGING_PREFIX


def register_version(bundles: Path, manifest: Manifest, keep_snapshots: int) -> tuple[str, ...]:
    """List all versions that are there, and drop the oldest snapshots beyond so many; releases always stay.

    The caller holds the lock over `bundles`. Returns what was dropped.
    """
    for leftover in bundles.glob(f".{INDEX_FILE}.*"):  # written by a promotion that was killed before the renaming
        leftover.unlink()
    stored_index = read_index(bundles, manifest.project)
    index = _sync_with_disk(bundles, stored_index).with_entry(_build_entry(manifest))
    snapshots = [entry.version for entry in index.versions if entry.is_snapshot and entry.version != manifest.version]
    expired_snapshots = tuple(snapshots[keep_snapshots - 1 :] if manifest.is_snapshot else ())
    if index.without_versions(*expired_snapshots) != stored_index:
        write_document(bundles / INDEX_FILE, index.without_versions(*expired_snapshots))
    for version in expired_snapshots:
        # under a name that is swept, so that a version is never to be seen in part
        removal_directory = bundles / f"{STAGING_PREFIX}{version}.old"
        (bundles / version).rename(removal_directory)
        shutil.rmtree(removal_directory, ignore_errors=True)
    return expired_snapshots


def _sync_with_disk(bundles: Path, index: BundleIndex) -> BundleIndex:
    for entry in index.versions:
        if not (bundles / entry.version).is_dir():
            index = index.without_versions(entry.version)
    listed_versions = {entry.version for entry in index.versions}
    for directory in sorted(bundles.iterdir()):
        if directory.is_dir() and not directory.name.startswith(".") and directory.name not in listed_versions:
            try:
                manifest = read_manifest(directory)
            except BundleError:
                continue  # what somebody else put there is theirs
            if (manifest.project, manifest.version) == (index.project, directory.name):
                index = index.with_entry(_build_entry(manifest))
    return index


def _build_entry(manifest: Manifest) -> BundleEntry:
    return BundleEntry(
        version=manifest.version,
        created=manifest.created,
        commit=manifest.source.commit,
        set_digest=manifest.set_digest,
        is_snapshot=manifest.is_snapshot,
    )


_MAX_DOCUMENT_BYTES = 16 * 1024**2


def read_manifest(bundle: Path) -> Manifest:
    """The description of the bundle in this folder; BundleError if it is no bundle, or its description is damaged."""
    path = bundle / MANIFEST_FILE
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"{bundle}: not a promotion bundle, {MANIFEST_FILE} is missing",
            hint="name the folder of one version, the one that holds manifest.json",
        )
    return decode_document(read_small_file(path), Manifest, str(path))


def read_index(bundles: Path, project: str) -> BundleIndex:
    """The list in the folder of a project's bundles, newest first; empty where nothing was promoted yet."""
    path = bundles / INDEX_FILE
    if not path.exists():
        return BundleIndex(project=project)
    return decode_document(read_small_file(path), BundleIndex, str(path))


def read_small_file(path: Path) -> bytes:
    """The bytes of a file that describes others; BundleError if it is a link, or larger than any of them can be."""
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: not a regular file")
    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise BundleError(f"{path}: is larger than {_MAX_DOCUMENT_BYTES // 1024**2} MiB, which is not believable")
    return path.read_bytes()


@contextmanager
def report_removed_bundle(bundle: Path) -> Iterator[None]:
    """BundleError where the bundle goes while it is read: a promotion drops old snapshots, whoever reads them."""
    try:
        yield
    except FileNotFoundError as error:
        if not Path(error.filename or "").is_relative_to(bundle):
            raise  # what is written meanwhile, on a medium that was taken out
        raise BundleError(
            f"{bundle}: went away while it was read", hint="`bundle.list` shows what there is; run the same word again"
        ) from error


def find_bundle(bundles: Path, version: str) -> Path:
    """The folder of a version of a project; UsageError that lists the versions there are if it is none of them."""
    versions = [entry.version for entry in read_index(bundles, bundles.name).versions]
    if version in versions:
        return bundles / version
    raise UsageError(
        f"there is no bundle of version {version!r}", hint=f"there are: {', '.join(versions) or 'none; run `promote`'}"
    )
