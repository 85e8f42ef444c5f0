"""Scan a build context as the builder sees it: every path with its type, permissions and content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.digests import sha256_hex
from lyra_tasks.dockerfile.file_hashes import ContentHash, FileHashCache, format_stamp, hash_content
from lyra_tasks.errors import StaleError
from lyra_tasks.files import display_path, escape_name, escape_surrogates

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher

_NO_CONTENT = ContentHash("", "")


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """A path of a build context.

    `digest` covers all that the builder sees of it, which is neither owner nor extended attributes. `stamp` changes
    with every change, even one that is undone; that of a directory is its time of change and what the ignore file
    excludes of it.
    """

    digest: str
    mode: int
    size: int
    mtime_ns: int
    content: ContentHash
    stamp: str


@dataclass(frozen=True)
class ContextSnapshot:
    """What the builder gets for an image: the paths of its context, and what it reads beside them.

    `build_files` are the Dockerfile and the ignore file, which the context may exclude. Names are relative to
    `context`; `root_stamp` is that of the context's directory itself.
    """

    context: Path
    dockerfile: Path | None
    entries: Mapping[str, ContextEntry]
    build_files: Mapping[str, ContextEntry]
    root_stamp: str

    @cached_property
    def digest(self) -> str:
        """The hash of the context."""
        hasher = hashlib.sha256()
        for name, digest in self.digests.items():
            hasher.update(f"{name}\0{digest}\n".encode())
        return hasher.hexdigest()

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each path of the context; directories end with a slash."""
        return dict(sorted((display_name(name, entry), entry.digest) for name, entry in self.entries.items()))

    @property
    def dockerfile_digest(self) -> str:
        """The SHA-256 of the Dockerfile."""
        return self.build_files[os.path.relpath(self.dockerfile or "", self.context)].content.sha256

    @cached_property
    def stamp(self) -> str:
        """The hash of all stamps: equal ones mean that nothing happened in between."""
        stamps = [(name, entry.stamp) for names in (self.entries, self.build_files) for name, entry in names.items()]
        return sha256_hex(repr((sorted(stamps), self.root_stamp)).encode("utf-8", "surrogateescape"))


def display_name(name: str, entry: ContextEntry) -> str:
    """Return the name of a path as messages and records have it: printable, a directory with a slash at its end."""
    slash = "/" if stat.S_ISDIR(entry.mode) else ""
    return escape_name(name) + slash


def scan_context(
    context: Path,
    dockerfile: Path | None,
    ignore_file: Path | None,
    matcher: PatternMatcher,
    file_hashes: FileHashCache,
) -> ContextSnapshot:
    """Hash what a builder gets of the directory `context`, without what the ignore file excludes.

    A directory belongs to it if it is not excluded itself, or if anything in it is not.
    """
    scanner = _Scanner(context, matcher, file_hashes)
    try:
        root_stamp = scanner.scan()
        build_files = {
            os.path.relpath(path, context): read_entry(os.path.realpath(path), path.stat(), file_hashes)
            for path in (dockerfile, ignore_file)
            if path is not None
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StaleError(
            f"{display_path(Path(error.filename))} disappeared while it was read", hint="Rerun the command"
        ) from error
    paths = [f"{context}/{name}" for name in scanner.entries]
    file_hashes.save(paths)
    return ContextSnapshot(context, dockerfile, scanner.entries, build_files, root_stamp)


def read_entry(path: str, status: os.stat_result, file_hashes: FileHashCache) -> ContextEntry:
    """Return a file or link as an entry of a context."""
    mode, content = status.st_mode, _NO_CONTENT
    if stat.S_ISLNK(mode):
        content = hash_content(os.fsencode(Path(path).readlink()))
    elif stat.S_ISREG(mode):
        content = file_hashes.hash_file(path, status)
    device = str(status.st_rdev) if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else ""
    return _create_entry(status, content, format_stamp(status), device)


def list_changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths whose digests differ."""
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def list_touched(before: ContextSnapshot, after: ContextSnapshot) -> tuple[str, ...]:
    """Return the paths that changed between two scans of a context, those whose change was undone included."""
    names: set[str] = set()
    for old, new in ((before.entries, after.entries), (before.build_files, after.build_files)):
        for name in {*old, *new}:
            old_entry, new_entry = old.get(name), new.get(name)
            if _has_changed(old_entry, new_entry):
                entry = new_entry or old_entry
                names.add(display_name(name, entry) if entry else name)
    if not names:  # a file that came and went; those that exist have been compared
        directories = {"./": (before.root_stamp, after.root_stamp)}
        directories |= {
            display_name(name, entry): (entry.stamp, after.entries[name].stamp)
            for name, entry in before.entries.items()
            if stat.S_ISDIR(entry.mode)
        }
        names = {
            name for name, (old_stamp, new_stamp) in directories.items() if _has_passing_files(old_stamp, new_stamp)
        }
    return tuple(sorted(names))


def format_names(names: Iterable[str], limit: int = 5) -> str:
    """Return at most `limit` names as a list for a message, and how many more there are."""
    listed = [console.escape(escape_surrogates(name)) for name in names]
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")


def _has_changed(old: ContextEntry | None, new: ContextEntry | None) -> bool:
    if old is None or new is None or old.digest != new.digest:
        return True
    return not stat.S_ISDIR(new.mode) and old.stamp != new.stamp


def _has_passing_files(old_stamp: str, new_stamp: str) -> bool:
    """Return whether a directory changed although neither its entries nor the excluded ones did."""
    (old_time, old_excluded), (new_time, new_excluded) = old_stamp.split(), new_stamp.split()
    return old_time != new_time and old_excluded == new_excluded


def _create_entry(status: os.stat_result, content: ContentHash, stamp: str, device: str = "") -> ContextEntry:
    digest = sha256_hex(f"{status.st_mode:o} {content.sha256} {device}".encode())
    return ContextEntry(digest, status.st_mode, status.st_size, status.st_mtime_ns, content, stamp)


class _Scanner:
    """One walk through a context; `entries` go by their path below it."""

    def __init__(self, context: Path, matcher: PatternMatcher, file_hashes: FileHashCache) -> None:
        self._context = os.fspath(context)
        self._matcher = matcher
        self._has_exceptions = any(pattern.startswith("!") for pattern in matcher.patterns)
        self._file_hashes = file_hashes
        self.entries: dict[str, ContextEntry] = {}

    def scan(self) -> str:
        """Scan the context and return the stamp of its directory."""
        _, stamp = self._scan_directory("", Path(self._context).stat())
        return stamp

    def _scan_directory(self, name: str, status: os.stat_result) -> tuple[bool, str]:
        """Scan a directory; return whether anything in it is not excluded, and its stamp."""
        excluded: list[str] = []
        has_entries = False
        for entry in self._list_directory(name):
            path = f"{name}/{entry.name}" if name else entry.name
            is_excluded = self._matcher.matches(path)
            if entry.is_dir(follow_symlinks=False):
                # a later `!pattern` may include a path below an excluded directory again
                if not is_excluded or self._has_exceptions:
                    entry_status = entry.stat(follow_symlinks=False)
                    is_used, stamp = self._scan_directory(path, entry_status)
                    if is_used or not is_excluded:
                        self.entries[path] = _create_entry(entry_status, _NO_CONTENT, stamp)
                        has_entries = True
                        continue
            elif not is_excluded:
                self.entries[path] = read_entry(entry.path, entry.stat(follow_symlinks=False), self._file_hashes)
                has_entries = True
                continue
            excluded.append(f"{entry.name} {entry.inode()}")
        excluded_hash = sha256_hex("\0".join(sorted(excluded)).encode("utf-8", "surrogateescape"))[:16]
        return has_entries, f"{status.st_mtime_ns} {excluded_hash}"

    def _list_directory(self, name: str) -> list[os.DirEntry[str]]:
        with os.scandir(f"{self._context}/{name}" if name else self._context) as entries:
            return list(entries)
