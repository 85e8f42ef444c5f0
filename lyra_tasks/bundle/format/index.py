"""The index of a project's bundles, and the bundles themselves by version.

A promotion that was killed may leave a complete version that is not listed, or a listed one that is gone. The next
promotion of any version repairs the index.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lyra_tasks.bundle.format.layout import INDEX_FILE
from lyra_tasks.bundle.format.manifest import (
    Commit,
    Document,
    Manifest,
    Timestamp,
    Version,
    decode_document,
    open_bundle,
    read_small_file,
    write_document,
)
from lyra_tasks.config.models import Name
from lyra_tasks.config.values import Digest
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.files import STAGING_PREFIX, display_path, sync_directory, walk_directory
from lyra_tasks.locks import file_lock

_LOCK_TIMEOUT_S = 600.0


class BundleEntry(Document):
    """A version in the index."""

    version: Version
    created: Timestamp
    commit: Commit
    set_digest: Digest
    is_snapshot: bool


class BundleIndex(Document):
    """The content of `index.json`: the versions of a project, newest first."""

    schema_: Literal["lyra.promotion-index/1"] = Field(default="lyra.promotion-index/1", alias="schema")
    project: Name
    versions: list[BundleEntry] = Field(default=[])

    @model_validator(mode="after")
    def _newest_first(self) -> BundleIndex:
        if self.versions != sorted(self.versions, key=_precedence, reverse=True):
            raise ValueError("versions are not sorted, newest first")
        if len({entry.version for entry in self.versions}) != len(self.versions):
            raise ValueError("duplicate version")
        return self


@dataclass(frozen=True)
class BundleStore:
    """The bundles of a project: their directory, named after the project, and the index, which is read once."""

    directory: Path

    @cached_property
    def index(self) -> BundleIndex:
        """Return the index, which is empty before the first promotion."""
        return read_index(self.directory, self.directory.name)

    def find(self, version: str) -> Path:
        """Return the directory of a version.

        Raises UsageError that lists the versions if it is unknown, and BundleError if its directory is gone.
        """
        versions = [entry.version for entry in self.index.versions]
        if version in versions:
            directory = self.directory / version
            if not os.path.lexists(directory):
                raise BundleError(
                    f"{display_path(directory)} is missing", hint=f"Restore it, or run `bundle.remove {version}`"
                )
            return directory
        raise UsageError(
            f"No bundle with version {version!r}", hint=f"Available: {', '.join(versions) or 'none; run `promote`'}"
        )

    def resolve(self, name: str) -> Path:
        """Return the directory of a bundle that is given as version or as path."""
        path = Path(name)
        return path if "/" in name or path.is_dir() else self.find(name)

    def find_newest(self) -> Path:
        """Return the directory of the newest version."""
        try:
            versions = self.index.versions
        except BundleError as error:
            raise BundleError(error.message, hint="Name the bundle: `verify PATH`") from error
        if not versions:
            raise UsageError("No bundles yet", hint="Run `promote`, or name a bundle: `verify PATH`")
        return self.find(versions[0].version)


@contextmanager
def lock_bundles(directory: Path) -> Iterator[int]:
    """Keep other processes from changing the bundles in `directory`; yield the lock's file descriptor."""
    with file_lock(directory / ".lock", resource="the promotion directory", timeout=_LOCK_TIMEOUT_S) as lock:
        yield lock


def measure_directory(directory: Path) -> int:
    """Return the size of all files in a directory in bytes; 0 if it does not exist."""
    if not directory.is_dir():
        return 0
    return sum((parent / name).lstat().st_size for parent, _, names in walk_directory(directory) for name in names)


def build_index(project: str, entries: Iterable[BundleEntry]) -> BundleIndex:
    """Return the index of these versions, newest first."""
    return BundleIndex(project=project, versions=sorted(entries, key=_precedence, reverse=True))


def read_index(directory: Path, project: str) -> BundleIndex:
    """Read the index in the directory of a project's bundles; it is empty before the first promotion."""
    path = directory / INDEX_FILE
    if not path.exists():
        return BundleIndex(project=project)
    return decode_document(read_small_file(path), BundleIndex, str(path))


def register_version(store: BundleStore, manifest: Manifest, keep_snapshots: int) -> tuple[str, ...]:
    """Write the index with all versions on disk, and remove the oldest snapshots beyond `keep_snapshots`.

    Releases are never removed. The caller holds the lock of the store. Returns the removed versions.
    """
    directory = store.directory
    for leftover in directory.glob(f".{INDEX_FILE}.*"):  # temporary file of a killed promotion
        leftover.unlink()
    entries = _entries_on_disk(store) | {manifest.version: build_entry(manifest)}
    index = build_index(store.index.project, entries.values())
    snapshots = [entry.version for entry in index.versions if entry.is_snapshot and entry.version != manifest.version]
    expired_snapshots = tuple(snapshots[keep_snapshots - 1 :] if manifest.is_snapshot else ())
    index = build_index(index.project, (entries[version] for version in entries.keys() - set(expired_snapshots)))
    if index != store.index:
        write_document(directory / INDEX_FILE, index)
    for version in expired_snapshots:
        shutil.rmtree(hide_version(directory / version), ignore_errors=True)
    return expired_snapshots


def unregister_version(store: BundleStore, version: str) -> None:
    """Write the index without a version, unless it is not listed; the caller holds the lock of the store."""
    entries = [entry for entry in store.index.versions if entry.version != version]
    if len(entries) < len(store.index.versions):
        write_document(store.directory / INDEX_FILE, build_index(store.index.project, entries))


def hide_version(directory: Path) -> Path:
    """Rename the directory of a version, so that nobody ever sees it in part, and return its new path."""
    hidden_directory = directory.with_name(f"{STAGING_PREFIX}{directory.name}.{secrets.token_hex(4)}")
    directory.rename(hidden_directory)
    sync_directory(directory.parent)
    return hidden_directory


def _entries_on_disk(store: BundleStore) -> dict[str, BundleEntry]:
    entries = {entry.version: entry for entry in store.index.versions if (store.directory / entry.version).is_dir()}
    for directory in store.directory.iterdir():
        if directory.is_dir() and not directory.name.startswith(".") and directory.name not in entries:
            try:
                manifest = open_bundle(directory).manifest
            except BundleError:
                continue  # not ours
            if (manifest.project, manifest.version) == (store.index.project, directory.name):
                entries[manifest.version] = build_entry(manifest)
    return entries


def build_entry(manifest: Manifest) -> BundleEntry:
    """Return the entry of a bundle in the index."""
    return BundleEntry(
        version=manifest.version,
        created=manifest.created,
        commit=manifest.source.commit,
        set_digest=manifest.set_digest,
        is_snapshot=manifest.is_snapshot,
    )


def _precedence(entry: BundleEntry) -> Any:
    """Sort by semantic version; versions that differ only in build metadata, by time and text."""
    from semver import Version as Semantic

    return Semantic.parse(entry.version), entry.created, entry.version
