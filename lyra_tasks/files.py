"""Files that are replaced whole or not at all, and are there after a power cut."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import NoSpaceError, is_full

STAGING = ".staging-"
"""How the name of a folder begins that is not whole yet."""


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: temporary sibling, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(PermissionError):  # FAT has no modes of its own, and refuses those that it cannot keep
                os.fchmod(file.fileno(), mode)
            sync(file.fileno())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and is_full(error):
            raise NoSpaceError(f"no space left to write {path}", hint=f"free space on {path.parent}") from error
        raise
    sync_folder(path.parent)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder of plain files, if it is there; what goes wrong is raised as it is.

    `shutil.copytree` would gather faults into one that does not say that a disk is full.
    """
    for folder, _, names in walk(source) if source.exists() else ():
        place = target / folder.relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(folder / name, place / name)


def walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from `top` on, with the names of the folders and files in it.

    `os.walk` passes over a folder that cannot be read, as if nothing were in it; here that is raised.
    """
    for folder, below, names in os.walk(top, onerror=_raise):
        yield Path(folder), below, names


def _raise(error: OSError) -> None:
    raise error


def sync(handle: int, call: Callable[[int], None] | None = None) -> None:
    """Make what `handle` stands for durable; a file system that cannot is told of once, and what was written counts.

    `call` is what does it: `os.fdatasync` where the times of a file do not matter, else `os.fsync`.
    """
    try:
        (call or os.fsync)(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise
        _tell_unsynced()


@cache
def _tell_unsynced() -> None:
    console.warn("a file system here cannot sync: what is written now may be lost in a power cut")


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(handle)
    finally:
        os.close(handle)
