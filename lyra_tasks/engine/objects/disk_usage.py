"""The engine's own figures of its disk, and the builder cache: looked at everywhere, emptied only where it is ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.errors import NoSpaceError, PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine


_MAX_ATTEMPTS = 5
_RETRY_INTERVAL_S = 0.2  # seconds


@dataclass(frozen=True)
class DiskUsage:
    """Bytes that the engine says its image layers and its builder cache take."""

    layers_size: int
    cache_size: int


def read_disk_usage(engine: Engine) -> DiskUsage | None:
    """What the engine says of its disk; volumes are left out, which it would have to walk through.

    None where the disk is so full that it cannot even count: that must not keep anybody from cleaning.
    """
    document: dict[str, Any] = {}
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        try:
            with translate_errors("asking for its disk use"):
                document = _query_disk_usage(engine, "image", "build-cache")
            break
        except NoSpaceError:
            return None
        except PreconditionError as error:
            # Engine 28 stumbles over a snapshot that somebody else removes while it counts
            if not attempts_left or "not found" not in error.message:
                raise
            time.sleep(_RETRY_INTERVAL_S)
    layers = document.get("LayersSize") or (document.get("ImageUsage") or {}).get("TotalSize") or 0
    return DiskUsage(int(layers), _cache_size(document))


def request_disk_usage(engine: Engine) -> Callable[[], DiskUsage | None]:
    """Ask for the figures, for which an engine takes its time to count; what is returned waits for its answer."""
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(read_disk_usage, engine)
    pool.shutdown(wait=False)
    return answer.result


def _query_disk_usage(engine: Engine, *kinds: str) -> dict[str, Any]:
    api = engine.api
    document: dict[str, Any] = api._result(api._get(api._url("/system/df"), params={"type": kinds}), json=True)
    return document


def _cache_size(document: dict[str, Any]) -> int:
    entries = document.get("BuildCache")
    if entries is None:
        entries = (document.get("BuildCacheUsage") or {}).get("Items")
    # what is shared with an image is the image's: it would not be freed with the cache
    return sum(int(entry["Size"]) for entry in entries or () if not entry.get("Shared"))


def owns_builder(engine: Engine) -> bool:
    """Whether the builder is Lyra's: that of its own sandbox; any other one serves others, too."""
    return engine.facts.sandboxed


@translate_errors("shrinking the builder cache")
def prune_build_cache(engine: Engine, max_bytes: int) -> None:
    """Drop what was used longest ago from the builder cache until it has at most `keep` bytes.

    Does nothing in an engine whose builder is not ours. A build that has just ended holds on to some for a moment.
    """
    if not owns_builder(engine):
        return
    api = engine.stream_api
    # the older and the newer names of the same limit; an engine passes over those that it does not know
    limits = {
        "all": "true",
        "keep-storage": str(max_bytes),
        "reserved-space": str(max_bytes),
        "max-used-space": str(max_bytes),
    }
    for _ in range(_MAX_ATTEMPTS):
        if _cache_size(_query_disk_usage(engine, "build-cache")) <= max_bytes:
            return
        api._result(api._post(api._url("/build/prune"), params=limits), json=True)
        time.sleep(_RETRY_INTERVAL_S)
