"""Folders that are there whole or not at all: filled beside their place, synced, renamed into it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import NoSpaceError, is_full
from lyra_tasks.files import STAGING, sync_file, sync_folder, walk


@contextmanager
def staging(folder: Path, word: str, *, sweep: str = "*") -> Iterator[Path]:
    """A folder beside `folder`, of which nothing is left if what happens in it fails.

    Remains of earlier ones are swept, of all whose names fit `sweep`; the caller holds a lock over those. NoSpaceError
    that names `word`, to be run again, if the disk is full.
    """
    parent = folder.parent
    stage = parent / f"{STAGING}{folder.name}"
    sweep_staging(parent, sweep)
    try:
        stage.mkdir()
        yield stage
    except OSError as error:
        if is_full(error):
            raise NoSpaceError(
                f"no space left in {parent} for {folder.name}",
                hint=f"free space there, then run `{word}` again",
            ) from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sweep_staging(parent: Path, names: str = "*") -> None:
    """Remove what was left of stagings whose names fit; what cannot be removed is left to the next time."""
    for old in parent.glob(f"{STAGING}{names}"):
        shutil.rmtree(old, ignore_errors=True)


def require_room(folder: Path, needed: int, what: str) -> None:
    """NoSpaceError with both figures where `folder` has less room than the `needed` bytes."""
    free = free_bytes(folder)
    if needed > free:
        raise NoSpaceError(
            f"{what} needs {console.size(needed)}, and {folder} has {console.size(free)} free",
            hint="free space there, or choose another folder",
        )


def warn_if_open(folder: Path) -> None:
    """Tell where everybody on this machine may change what is promoted."""
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        console.warn(f"{folder}: unsafe mode {stat.filemode(mode)}, everybody may change bundles there; chmod o-w it")


def free_bytes(folder: Path) -> int:
    """The room at a folder for whoever asks."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def publish(stage: Path, folder: Path) -> None:
    """Make all of `stage` durable, and give it its name; what had that name before is removed afterwards."""
    for place, _, names in walk(stage):
        for name in names:
            sync_file(place / name)
        sync_folder(place)
    aside = stage.with_name(f"{stage.name}.old")
    if folder.exists():
        folder.rename(aside)
    stage.rename(folder)
    sync_folder(folder.parent)
    if aside.exists():
        shutil.rmtree(aside)
