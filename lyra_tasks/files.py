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
from lyra_tasks.errors import NoSpaceError, is_disk_full

STAGING_PREFIX = ".staging-"
"""How the name of a folder begins that is not whole yet."""


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: temporary sibling, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(PermissionError):  # FAT has no modes of its own, and refuses those that it cannot keep
                os.fchmod(file.fileno(), mode)
            sync_to_disk(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and is_disk_full(error):
            raise NoSpaceError(f"no space left to write {path}", hint=f"free space on {path.parent}") from error
        raise
    sync_directory(path.parent)


def copy_directory(source: Path, target: Path) -> None:
    """Copy a folder of plain files, if it is there; what goes wrong is raised as it is.

    `shutil.copytree` would gather faults into one that does not say that a disk is full.
    """
    for directory, _, filenames in walk_directory(source) if source.exists() else ():
        destination = target / directory.relative_to(source)
        destination.mkdir(parents=True, exist_ok=True)
        for filename in filenames:
            shutil.copyfile(directory / filename, destination / filename)


def walk_directory(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from `top` on, with the names of the folders and files in it.

    `os.walk` passes over a folder that cannot be read, as if nothing were in it; here that is raised.
    """
    for directory, subdirectories, filenames in os.walk(top, onerror=_raise):
        yield Path(directory), subdirectories, filenames


def _raise(error: OSError) -> None:
    raise error


def sync_to_disk(fd: int, sync_function: Callable[[int], None] | None = None) -> None:
    """Make what `handle` stands for durable; a file system that cannot is told of once, and what was written counts.

    `call` is what does it: `os.fdatasync` where the times of a file do not matter, else `os.fsync`.
    """
    try:
        (sync_function or os.fsync)(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise
        _warn_not_synced()


@cache
def _warn_not_synced() -> None:
    console.warn("a file system here cannot sync: what is written now may be lost in a power cut")


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        sync_to_disk(fd)
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_to_disk(fd)
    finally:
        os.close(fd)
