"""Packages that were unpacked into the cache: whether they are still what was verified, before root runs them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lyra_tasks.digests import file_sha256
from lyra_tasks.errors import PreconditionError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_own_directory(directory: Path) -> bool:
    """Return whether only this user and root can write to a directory; raise PreconditionError if it is another's."""
    info = directory.stat()
    if not _is_trusted_owner(info):
        raise PreconditionError(
            f"{directory}: belongs to another user (uid {info.st_uid}), who can change the programs in it",
            hint=f"Delete {directory}, or set XDG_CACHE_HOME to a directory of your own",
        )
    return not info.st_mode & _WRITABLE_BY_OTHERS


def claim_directory(directory: Path, *, keep: bool = True) -> None:
    """Create a directory in which only this user and root can write.

    Unless `keep`, one in which others could write is emptied. Raises PreconditionError if it is another user's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not is_own_directory(directory):
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) & ~_WRITABLE_BY_OTHERS)
        for path in directory.iterdir() if not keep else ():
            shutil.rmtree(path) if _is_directory(path) else path.unlink()


def is_protected(directory: Path) -> bool:
    """Return whether a tree exists in which only this user and root could write."""
    return directory.is_dir() and all(
        _is_trusted_owner(info) and (stat.S_ISLNK(info.st_mode) or not info.st_mode & _WRITABLE_BY_OTHERS)
        for info in (path.lstat() for path in (directory, *_walk(directory)))
    )


def protect_tree(directory: Path) -> None:
    """Let only the owner write to anything in a tree, whatever the umask and the packages say."""
    for path in (directory, *_walk(directory)):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_WRITABLE_BY_OTHERS)


def hash_tree(directory: Path) -> dict[str, str]:
    """Return the content of each file in a tree by its path: its SHA-256, or where a link leads."""
    return {str(path.relative_to(directory)): _describe(path) for path in _walk(directory) if not _is_directory(path)}


def is_unchanged(directory: Path, contents: dict[str, str], list_file: Path) -> bool:
    """Return whether a tree has just these contents, and only this user and root could change them.

    A file is hashed only if it was touched after the `list_file` of the contents was written.
    """
    if not is_protected(directory):
        return False
    listed_at, names = list_file.lstat().st_ctime_ns, set()
    for path in _walk(directory):
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode) or path == list_file:
            continue
        name = str(path.relative_to(directory))
        is_older = stat.S_ISREG(info.st_mode) and info.st_ctime_ns <= listed_at
        if name not in contents or (not is_older and _describe(path) != contents[name]):
            return False
        names.add(name)
    return names == contents.keys()


def _walk(directory: Path) -> Iterator[Path]:
    for parent, subdirectories, files in os.walk(directory):
        yield from (Path(parent, name) for name in (*subdirectories, *files))


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _describe(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return file_sha256(path) if path.is_file() else "neither a file nor a link"


def _is_trusted_owner(info: os.stat_result) -> bool:
    return info.st_uid in {0, os.geteuid()}
