"""Read the disk usage of an engine and prune the build cache of our own engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.errors import NoSpaceError, PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_ATTEMPTS = 5
_RETRY_INTERVAL_S = 0.2


@dataclass(frozen=True)
class DiskUsage:
    """The bytes that image layers and the build cache take."""

    layers_size: int
    cache_size: int


def read_disk_usage(engine: Engine) -> DiskUsage | None:
    """Return the disk usage without volumes, whose size the engine can only find by walking through them.

    None if the disk is too full to compute it, which must not prevent a cleanup.
    """
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        try:
            with translate_errors("reading the disk usage"):
                document = _query_disk_usage(engine, "image", "build-cache")
            layers = document.get("LayersSize") or (document.get("ImageUsage") or {}).get("TotalSize") or 0
            return DiskUsage(int(layers), _cache_size(document))
        except NoSpaceError:
            break
        except PreconditionError as error:
            # Engine 28 fails if a snapshot is removed while it computes the usage
            if not attempts_left or "not found" not in error.message:
                raise
            time.sleep(_RETRY_INTERVAL_S)
    return None


def read_written_bytes(engine: Engine, container: str) -> int | None:
    """Return the size of what a container has written to its root file system, or None if it is gone."""
    from docker.errors import NotFound

    api = engine.api
    with translate_errors("measuring a container"), suppress(NotFound):
        document = api._result(api._get(api._url("/containers/{0}/json", container), params={"size": 1}), json=True)
        return int(document.get("SizeRw") or 0)
    return None


def request_disk_usage(engine: Engine) -> Callable[[], DiskUsage | None]:
    """Start reading the disk usage, which takes a while, and return a function that waits for it."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(read_disk_usage, engine)
    pool.shutdown(wait=False)
    return future.result


def _query_disk_usage(engine: Engine, *kinds: str) -> dict[str, Any]:
    api = engine.api
    document: dict[str, Any] = api._result(api._get(api._url("/system/df"), params={"type": kinds}), json=True)
    return document


def _cache_size(document: dict[str, Any]) -> int:
    entries = document.get("BuildCache")
    if entries is None:
        entries = (document.get("BuildCacheUsage") or {}).get("Items")
    # pruning would not free records that are shared with an image
    return sum(int(entry["Size"]) for entry in entries or () if not entry.get("Shared"))


def owns_builder(engine: Engine) -> bool:
    """Return whether the builder belongs to our own private engine and serves nobody else."""
    return engine.facts.sandboxed


@translate_errors("pruning the build cache")
def prune_build_cache(engine: Engine, max_bytes: int) -> None:
    """Prune the least recently used records of the build cache until it has at most `max_bytes`.

    Does nothing if the builder is not ours. A build that has just finished may lock some records for a moment.
    """
    if not owns_builder(engine):
        return
    api = engine.stream_api
    # old and new names of the same limit; an engine ignores those that it does not know
    limits = {"all": "true", **dict.fromkeys(("keep-storage", "reserved-space", "max-used-space"), str(max_bytes))}
    for _ in range(_MAX_ATTEMPTS):
        if _cache_size(_query_disk_usage(engine, "build-cache")) <= max_bytes:
            return
        api._result(api._post(api._url("/build/prune"), params=limits), json=True)
        time.sleep(_RETRY_INTERVAL_S)
