"""Remove from the caches what nothing has used for long: those of the user, and those in a checkout's state."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.engine.sandbox.stray import list_used_engine_directories
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.files import measure_size
from lyra_tasks.locks import is_locked
from lyra_tasks.paths import Paths
from lyra_tasks.records.retention import Limits, StoredItem, select_expired

_DAY_NS = 24 * 3600 * 10**9
_STAMP_FILE_NAME = "limits.stamp"
ROOT_FILE_SYSTEMS = "root file systems"
_ALL = 1 << 62


@dataclass(frozen=True)
class CacheUsage:
    """What a part of the caches takes, its limit in bytes (0: none), and what nothing has used for long."""

    title: str
    count: int
    size: int
    max_bytes: int
    expired: tuple[StoredItem, ...]


def measure_caches(work: Workspace) -> tuple[CacheUsage, ...]:
    """Return the usage of every part of the caches."""
    usages = _find_usages(work, with_sizes=True)
    cache, max_bytes = work.paths.cache / "layers", work.config.resources.cache
    layers = list((cache / "blobs").glob("*"))  # `promote` keeps their limit
    return (*usages, CacheUsage("compressed layers", len(layers), measure_size(cache), max_bytes, ()))


def _find_usages(work: Workspace, *, with_sizes: bool) -> Iterator[CacheUsage]:
    """Yield the usage of the parts that have limits here; without sizes, only what may expire is measured."""
    resources, now = work.config.resources, time.time_ns()
    oldest = now - resources.keep_cached * _DAY_NS
    used = {str(directory) for directory in list_used_engine_directories()}
    for title, items in _list_parts(work.paths, _ALL if with_sizes else oldest):
        # what was used today may be in use now
        needed = {item.name for item in items if item.used_ns > now - _DAY_NS or item.name in used}
        max_bytes = resources.cache if title == ROOT_FILE_SYSTEMS else 0
        expired = select_expired(items, needed, Limits(_ALL, max_bytes or _ALL, oldest))
        yield CacheUsage(title, len(items), sum(item.size for item in items), max_bytes, expired)


def remove_unused_cache(work: Workspace, *, is_due: bool = False) -> int:
    """Remove what nothing has used for `resources.keep_cached` days, and return its size.

    Unless it `is_due`, that is done once a day.
    """
    stamp = work.paths.cache / _STAMP_FILE_NAME
    with suppress(OSError):
        if not is_due and time.time_ns() - stamp.stat().st_mtime_ns < _DAY_NS:
            return 0
    removed = 0
    for usage in _find_usages(work, with_sizes=False):
        for item in usage.expired:
            _remove(Path(item.name))
            removed += item.size
    if removed:
        days = console.format_count(work.config.resources.keep_cached, "day")
        console.info(f"Removed {console.format_bytes(removed)} of caches, unused for {days} or beyond the limit")
    with suppress(OSError):
        work.paths.cache.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    return removed


def _list_parts(paths: Paths, measured_before_ns: int) -> Iterator[tuple[str, list[StoredItem]]]:
    """Yield the parts of the caches with their items, whose names are paths; a companion file has the time of use."""
    cache = paths.cache
    engines = [path for path in _list(cache / "engines", "*") if path.is_dir()]
    yield "engine packages", [_item(path, path.with_suffix(".lock"), measured_before_ns) for path in engines]
    tars = _list(cache / "rootfs", "*/rootfs.tar")
    yield ROOT_FILE_SYSTEMS, [_item(tar.parent, tar.parent.with_suffix(".facts.json")) for tar in tars]
    yield "package lists", [_item(path, path / "lock", measured_before_ns) for path in _list(cache, "apt")]
    directories = (cache / "packages", cache / "users", paths.state / "scans" / "layers")
    documents = [item for directory in directories for item in _list_documents(directory)]
    locks = [path for path in _list(cache / "admission", "*") if path.is_dir() or not is_locked(path)]
    yield "facts about images and engines", [*documents, *(_item(path, path, measured_before_ns) for path in locks)]


def _list_documents(directory: Path) -> Iterator[StoredItem]:
    """Yield the documents in a directory that may have thousands, with one system call for each."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                with suppress(OSError):  # removed meanwhile
                    status = entry.stat()
                    yield StoredItem(entry.path, status.st_mtime_ns, status.st_size)


def _list(directory: Path, pattern: str) -> list[Path]:
    return sorted(directory.glob(pattern))


def _item(path: Path, used: Path, measured_before_ns: int = _ALL) -> StoredItem:
    """Return a file or directory with its size, which is 0 if that was used later and counts for nothing."""
    times = []
    for candidate in (path, used):
        with suppress(OSError):
            times.append(candidate.stat().st_mtime_ns)
    used_ns = max(times, default=0)
    return StoredItem(str(path), used_ns, measure_size(path) if used_ns < measured_before_ns else 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Renamed first: half a directory must not look like a whole one.
        removed = path.with_name(f".{path.name}.{os.getpid()}.removed")
        with suppress(OSError):
            path.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)
        for companion in (path.with_suffix(".facts.json"), path.parent / "hashes" / f"{path.name}.json"):
            companion.unlink(missing_ok=True)
    else:
        with suppress(OSError):
            path.unlink()
