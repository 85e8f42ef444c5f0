"""Create directories atomically: fill them beside their target, sync, then rename."""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import NoSpaceError, is_disk_full
from lyra_tasks.files import STAGING_PREFIX, quote_path, sync_directory, sync_file, walk_directory
from lyra_tasks.locks import directory_lock

_SYNC_THREADS = 8


@contextmanager
def staging_directory(target: Path, command: str, *, stale_pattern: str = "*") -> Iterator[Path]:
    """Yield a new directory beside `target`, which is removed afterwards unless it was published.

    It is locked, and its name is its own, so that no other process takes it for a leftover. Removes leftovers that
    match `stale_pattern`. If the disk is full, the hint of the error names `command`.
    """
    parent = target.parent
    stage = parent / f"{STAGING_PREFIX}{target.name}.{secrets.token_hex(4)}"
    remove_stale_staging(parent, stale_pattern)
    try:
        stage.mkdir()
        with directory_lock(stage):
            yield stage
    except OSError as error:
        if is_disk_full(error):
            raise NoSpaceError(
                f"Cannot write {target.name} to {parent}: no space left on device",
                hint=f"Free some space, then run `{command}` again",
            ) from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def remove_stale_staging(parent: Path, name_pattern: str = "*") -> None:
    """Remove matching leftovers as far as possible, except directories that another process is filling."""
    for leftover in parent.glob(f"{STAGING_PREFIX}{name_pattern}"):
        with suppress(FileNotFoundError, NotADirectoryError), directory_lock(leftover) as is_unused:
            if is_unused:
                shutil.rmtree(leftover, ignore_errors=True)


def require_free_space(directory: Path, required_bytes: int, purpose: str) -> None:
    """Raise NoSpaceError if `directory` has less than `required_bytes` free."""
    free = shutil.disk_usage(directory).free
    if required_bytes > free:
        raise NoSpaceError(
            f"Not enough space for {purpose}: {console.format_bytes(required_bytes)} needed, "
            f"{console.format_bytes(free)} free in {directory}",
            hint="Free some space or choose another directory",
        )


def warn_if_world_writable(directory: Path) -> None:
    """Warn if every user of this machine can change the bundles."""
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        console.warn(
            f"{directory}: mode {stat.filemode(mode)} lets every user change the bundles; "
            f"run `chmod o-w {quote_path(directory)}`"
        )


def write_staged(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file in a staging directory; it is synced when that is published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with suppress(PermissionError):  # FAT has no modes
        path.chmod(mode)


def publish_directory(stage: Path, target: Path) -> None:
    """Sync `stage` to disk and rename it to `target`, then remove what `target` was before."""
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:  # a journal of a file system writes several at once
        for directory, _, file_names in walk_directory(stage):
            list(pool.map(sync_file, (directory / name for name in file_names)))
            sync_directory(directory)
    previous = stage.with_name(f"{stage.name}.old")
    if target.exists():
        target.rename(previous)
    stage.rename(target)
    sync_directory(target.parent)
    if previous.exists():
        shutil.rmtree(previous)
