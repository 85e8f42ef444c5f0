"""Find the files of the project that have changed and that rules of services are about."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.develop.reactions import ServiceRule
from lyra_tasks.develop.source import diff_source, list_local_files, read_file_record
from lyra_tasks.develop.sync import find_git_ignored
from lyra_tasks.records.dev import UploadedFile

_NEVER_WATCHED = {".git", ".lyra"}


@dataclass(frozen=True)
class FileChanges:
    """Paths of files that were written and that were deleted, relative to the project."""

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    def join(self, later: FileChanges) -> FileChanges:
        """Return both as one change."""
        written = dict.fromkeys((*(path for path in self.written if path not in later.deleted), *later.written))
        deleted = dict.fromkeys((*(path for path in self.deleted if path not in later.written), *later.deleted))
        return FileChanges(tuple(written), tuple(deleted))


@dataclass
class ChangeTracker:
    """Compares the files that `rules` match with their state at the last look.

    These are files that git does not ignore, and those in ignored directories that a rule names. `excluded` is the
    bundle directory.
    """

    root: Path
    excluded: Path
    rules: Sequence[ServiceRule]
    _files: dict[str, UploadedFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the first look, so that only later changes count."""
        self.find_changes()

    @property
    def directories(self) -> set[Path]:
        """Return the directories to watch: those in which the files of the rules are."""
        roots = {self.root / root for rule in self.rules for root in rule.rule.roots}
        return {next(path for path in (root, *root.parents) if path.is_dir()) for root in roots}

    def find_changes(self) -> FileChanges:
        """Return what has changed since the last call."""
        if not self.rules:
            return FileChanges()
        files = dict(self._list_files())
        changes = diff_source(self.root, files, self._files)
        for name in changes.upload:
            with suppress(OSError):  # it was deleted meanwhile, which is the next change
                self._files[name] = read_file_record(self.root / name, files[name])
        for name in changes.delete:
            del self._files[name]
        return FileChanges(changes.upload, changes.delete)

    def _list_files(self) -> Iterator[tuple[str, os.stat_result]]:
        listed = dict(list_local_files(self.root, self.excluded).files)
        roots = sorted({root for rule in self.rules for root in rule.rule.roots if root != "."})
        for root in find_git_ignored(self.root, roots) & set(roots):
            listed |= _walk(self.root, root)
        for name, status in listed.items():
            if any(rule.matches(name) for rule in self.rules):
                yield name, status


def _walk(root: Path, name: str) -> dict[str, os.stat_result]:
    """Return the regular files at or below a path, by path below `root`."""
    files: dict[str, os.stat_result] = {}
    paths = [root / name]
    for directory, directories, names in os.walk(root / name):
        directories[:] = [name for name in directories if name not in _NEVER_WATCHED]
        paths += [Path(directory, name) for name in names]
    for path in paths:
        if path.is_file() and not path.is_symlink():
            files[posixpath.normpath(path.relative_to(root).as_posix())] = path.lstat()
    return files
