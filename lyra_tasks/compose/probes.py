"""Look at the files that a Compose project mounts, and remember what was seen: the result depends on it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lyra_tasks.files import escape_surrogates

MAX_LISTED_FILES = 50
_PLACEHOLDER_NAMES = {".gitkeep", ".gitignore", ".keep", ".DS_Store"}

Kind = Literal["file", "directory", "empty", "missing"]


@dataclass
class ProjectProbes:
    """What is at certain paths, by path; and the files in certain directories."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def kind_of(self, path: Path) -> Kind:
        """Return what is at a path; a directory with nothing but placeholders is empty."""
        return self.kinds.setdefault(str(path), _find_kind(path))

    def list_files(self, directory: Path) -> tuple[str, ...]:
        """Return the files in a directory by their path in it, or none if there are more than `MAX_LISTED_FILES`."""
        return self.files.setdefault(str(directory), _list_files(directory))

    def is_current(self) -> bool:
        """Return whether another look would show the same."""
        return all(_find_kind(Path(path)) == kind for path, kind in self.kinds.items()) and all(
            _list_files(Path(path)) == files for path, files in self.files.items()
        )

    def merge(self, kinds: Mapping[str, Kind], files: Mapping[str, tuple[str, ...]]) -> None:
        """Add what another look has shown."""
        self.kinds |= kinds
        self.files |= files


def _find_kind(path: Path) -> Kind:
    try:
        if path.is_file():
            return "file"
        if not path.is_dir():
            return "missing"
        with os.scandir(path) as entries:
            return "directory" if any(entry.name not in _PLACEHOLDER_NAMES for entry in entries) else "empty"
    except OSError:
        return "missing"


def _list_files(directory: Path) -> tuple[str, ...]:
    files: list[str] = []
    for parent, directories, names in os.walk(directory):
        directories.sort()
        base = os.path.relpath(parent, directory)
        files += [
            escape_surrogates(posixpath.normpath(posixpath.join(base, name)))
            for name in sorted(names)
            if name not in _PLACEHOLDER_NAMES
        ]
        if len(files) > MAX_LISTED_FILES:
            return ()
    return tuple(files)
