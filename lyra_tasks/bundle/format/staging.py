"""Folders that are there whole or not at all: filled beside their place, synced, renamed into it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import NoSpaceError, is_disk_full
from lyra_tasks.files import STAGING_PREFIX, sync_directory, sync_file, walk_directory


@contextmanager
def staging_directory(target: Path, command: str, *, stale_pattern: str = "*") -> Iterator[Path]:
    """A folder beside `folder`, of which nothing is left if what happens in it fails.

    Remains of earlier ones are swept, of all whose names fit `sweep`; the caller holds a lock over those. NoSpaceError
    that names `word`, to be run again, if the disk is full.
    """
    parent = target.parent
    stage = parent / f"{STAGING_PREFIX}{target.name}"
    remove_stale_staging(parent, stale_pattern)
    try:
        stage.mkdir()
        yield stage
    except OSError as error:
        if is_disk_full(error):
            raise NoSpaceError(
                f"no space left in {parent} for {target.name}",
                hint=f"free space there, then run `{command}` again",
            ) from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def remove_stale_staging(parent: Path, name_pattern: str = "*") -> None:
    """Remove what was left of stagings whose names fit; what cannot be removed is left to the next time."""
    for leftover in parent.glob(f"{STAGING_PREFIX}{name_pattern}"):
        shutil.rmtree(leftover, ignore_errors=True)


def require_free_space(directory: Path, required_bytes: int, purpose: str) -> None:
    """NoSpaceError with both figures where `folder` has less room than the `needed` bytes."""
    free = free_bytes(directory)
    if required_bytes > free:
        raise NoSpaceError(
            f"{purpose} needs {console.format_bytes(required_bytes)}, and {directory} has {console.format_bytes(free)} free",
            hint="free space there, or choose another folder",
        )


def warn_if_world_writable(directory: Path) -> None:
    """Tell where everybody on this machine may change what is promoted."""
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        console.warn(
            f"{directory}: unsafe mode {stat.filemode(mode)}, everybody may change bundles there; chmod o-w it"
        )


def free_bytes(directory: Path) -> int:
    """The room at a folder for whoever asks."""
    stats = os.statvfs(directory)
    return stats.f_bavail * stats.f_frsize


def publish_directory(stage: Path, target: Path) -> None:
    """Make all of `stage` durable, and give it its name; what had that name before is removed afterwards."""
    for directory, _, file_names in walk_directory(stage):
        for name in file_names:
            sync_file(directory / name)
        sync_directory(directory)
    previous = stage.with_name(f"{stage.name}.old")
    if target.exists():
        target.rename(previous)
    stage.rename(target)
    sync_directory(target.parent)
    if previous.exists():
        shutil.rmtree(previous)
