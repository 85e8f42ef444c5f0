"""Read what a commit holds, without asking git's index about the files at hand."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.versions.git import run_git

_SUBMODULE_MODE = "160000"
_LINK_MODE, _PROGRAM_MODE, _FILE_MODE = "120000", "100755", "100644"
_SHA256_ID_LENGTH = 64
_GIT_DIRECTORY = ".git"
_ALL = "."
_MAX_PATHS = 1000  # on a command line
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_LFS_VERSION = "version https://git-lfs.github.com/spec/"
_LFS_OID_PREFIX = "oid sha256:"
_MAX_LFS_POINTER_BYTES = 1024


@dataclass(frozen=True)
class TreeEntry:
    """A path of a commit: git's mode and the id of the blob."""

    mode: str
    id: str


@dataclass(frozen=True)
class LocalFile:
    """A file or link in the checkout; `git_id` is the SHA-1 id of a blob with its content."""

    path: Path
    mode: int
    sha256: str
    git_id: str


@dataclass(frozen=True)
class HeadDifferences:
    """What differs from a commit, by path: `changed` could be committed, `uncommitted` is what git does not commit.

    The latter are files that git ignores, its own directory, empty directories, and files that it converts by a filter.
    """

    changed: tuple[str, ...]
    uncommitted: tuple[str, ...]


def read_tree(top: Path, commit: str, paths: Iterable[str]) -> dict[str, TreeEntry]:
    """Return what a commit holds at and below `paths`, with the commits of submodules that are checked out.

    A large repository may have a hundred thousand files beside those that images are made from.
    """
    names = {name for name in paths if name != ".." and not name.startswith("../")}
    if not names:
        return {}
    listed = {_find_submodule(top, name) or name for name in names}
    limits = () if _ALL in names or len(listed) > _MAX_PATHS else sorted(listed)
    output = run_git(top, "--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit, "--", *limits)
    entries: dict[str, TreeEntry] = {}
    for line in output.split("\0"):
        if not line:
            continue
        fields, _, path = line.partition("\t")
        mode, _, object_id = fields.split(" ")
        entries[path] = TreeEntry(mode, object_id)
        if mode == _SUBMODULE_MODE and (top / path / _GIT_DIRECTORY).exists():
            with suppress(PreconditionError):  # another commit is checked out, and this one was never fetched
                submodule = read_tree(top / path, object_id, _select_below(path, names))
                del entries[path]
                entries |= {f"{path}/{name}": entry for name, entry in submodule.items()}
                if (top / path / _GIT_DIRECTORY).is_file():
                    entries[f"{path}/{_GIT_DIRECTORY}"] = TreeEntry(mode, object_id)
    return entries


def _find_submodule(top: Path, name: str) -> str:
    """Return the directory above a path that has a repository of its own, which git does not look into, or ''."""
    return next((parent for parent in list_parents(name) if (top / parent / _GIT_DIRECTORY).exists()), "")


def _select_below(submodule: str, names: Iterable[str]) -> set[str]:
    """Return what `names` select of a submodule."""
    above = {_ALL, submodule, *list_parents(submodule)}
    return {
        _ALL if name in above else name.removeprefix(f"{submodule}/")
        for name in names
        if name in above or name.startswith(f"{submodule}/")
    }


def compare_with_tree(
    top: Path,
    tree: Mapping[str, TreeEntry],
    files: Mapping[str, LocalFile],
    directories: Iterable[str],
    known_changes: Iterable[str] = (),
) -> HeadDifferences:
    """Compare files and directories of the checkout, by their path below `top`, with those of a commit.

    Content counts as committed if it has the bytes of the blob, or those that a Git LFS pointer names. What git itself
    reports, `known_changes`, is left out.
    """
    known = frozenset(known_changes)
    different = [name for name, file in files.items() if name not in known and not _is_same(file, tree.get(name))]
    candidates = [name for name in different if name in tree and _git_mode(files[name]) == tree[name].mode]
    stored_in_lfs = _find_lfs_files(top, tree, files, candidates)
    converted = _find_converted_files(top, tree, [name for name in candidates if name not in stored_in_lfs])
    own = {name for name in different if name not in tree and _GIT_DIRECTORY in name.split("/")}
    ignored = _find_ignored(top, [name for name in different if name not in tree and name not in own])
    known_directories = {parent for names in (tree, files) for name in names for parent in list_parents(name)}
    empty = {
        f"{name}/" for name in directories if name not in known_directories and _GIT_DIRECTORY not in name.split("/")
    }
    git_directories = {f"{name.partition('.git/')[0]}.git/" for name in own}
    uncommitted = {*converted, *ignored, *empty, *git_directories}
    changed = [name for name in different if name not in {*uncommitted, *stored_in_lfs, *own}]
    return HeadDifferences(tuple(sorted(changed)), tuple(sorted(uncommitted)))


def _is_same(file: LocalFile, entry: TreeEntry | None) -> bool:
    if entry is not None and entry.mode == _SUBMODULE_MODE:  # the file that names the directory of a submodule
        return True
    if entry is None or _git_mode(file) != entry.mode:
        return False
    git_id = file.git_id if len(entry.id) < _SHA256_ID_LENGTH else _hash_as_git_sha256(file)
    return git_id == entry.id


def _git_mode(file: LocalFile) -> str:
    """Return the mode that git would store, or '' if it cannot store it: git knows no special bits."""
    if stat.S_ISLNK(file.mode):
        return _LINK_MODE
    if not stat.S_ISREG(file.mode) or file.mode & _SPECIAL_BITS:
        return ""
    return _PROGRAM_MODE if file.mode & stat.S_IXUSR else _FILE_MODE


def _hash_as_git_sha256(file: LocalFile) -> str:
    data = os.fsencode(file.path.readlink()) if stat.S_ISLNK(file.mode) else file.path.read_bytes()
    return hashlib.sha256(b"blob %d\0" % len(data) + data).hexdigest()


def _find_lfs_files(
    top: Path, tree: Mapping[str, TreeEntry], files: Mapping[str, LocalFile], names: Sequence[str]
) -> set[str]:
    """Return the files whose blob is the Git LFS pointer to exactly their content."""
    found = set()
    for name in names:
        with suppress(PreconditionError):  # a blob of a submodule
            if int(run_git(top, "cat-file", "-s", tree[name].id)) > _MAX_LFS_POINTER_BYTES:
                continue
            lines = run_git(top, "cat-file", "blob", tree[name].id).splitlines()
            if lines[:1] and lines[0].startswith(_LFS_VERSION) and f"{_LFS_OID_PREFIX}{files[name].sha256}" in lines:
                found.add(name)
    return found


def _find_converted_files(top: Path, tree: Mapping[str, TreeEntry], names: Sequence[str]) -> set[str]:
    """Return the files that git would store as they are committed: it converts line ends or runs a filter."""
    names = [name for name in names if "\n" not in name]
    if not names:
        return set()
    ids = run_git(top, "hash-object", "--stdin-paths", stdin="".join(f"{name}\n" for name in names)).split()
    return {name for name, object_id in zip(names, ids, strict=True) if tree[name].id == object_id}


def _find_ignored(top: Path, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    outside = {name for name in names if name.startswith("../")}
    stdin = "".join(f"{name}\0" for name in names if name not in outside)
    output = run_git(top, "check-ignore", "--no-index", "-z", "--stdin", stdin=stdin, allowed_exit_codes=(0, 1))
    return outside | {name for name in output.split("\0") if name}


def list_parents(name: str) -> list[str]:
    """Return the directories above a path, from the top, without the top itself."""
    parts = name.rstrip("/").split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
