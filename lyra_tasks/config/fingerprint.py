"""One hash for everything in a checkout that its commit does not say."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from lyra_tasks.errors import PreconditionError


def fingerprint(top: Path, changed: Iterable[str]) -> str:
    """The SHA-256 of names, kinds and content of the changed paths below `top`, whatever git is configured to show.

    A folder among them (a submodule, a repository inside) counts with all its files. PreconditionError if a file cannot
    be read.
    """
    total = hashlib.sha256()
    try:
        for path in sorted(changed):
            for file in _files(top / path):
                total.update(os.fsencode(file.relative_to(top)) + b"\0" + _content(file) + b"\0")
    except OSError as error:
        raise PreconditionError(
            f"{error.filename} cannot be read: {error.strerror}", hint="commit it, ignore it, or change its permissions"
        ) from error
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    found: list[Path] = []
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if name != ".git"]
        links = [name for name in below if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in [*names, *links] if name != ".git"]
    return sorted(found)


def _content(file: Path) -> bytes:
    """Kind and content of one path: deleted, link and target, or executable bit and digest."""
    try:
        mode = file.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return b"deleted"
    if stat.S_ISLNK(mode):
        return b"link " + os.fsencode(file.readlink())
    if not stat.S_ISREG(mode):
        return b"special"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{'x' if mode & stat.S_IXUSR else '-'} {digest}".encode()
