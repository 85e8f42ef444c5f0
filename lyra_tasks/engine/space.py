"""The engine's own figures of its disk, and the builder cache: looked at everywhere, emptied only where it is ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.errors import NoSpaceError, PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


_TRIES = 5
_BETWEEN = 0.2  # seconds


@dataclass(frozen=True)
class Figures:
    """Bytes that the engine says its image layers and its builder cache take."""

    layers: int
    cache: int


def figures(engine: Engine) -> Figures | None:
    """What the engine says of its disk; volumes are left out, which it would have to walk through.

    None where the disk is so full that it cannot even count: that must not keep anybody from cleaning.
    """
    said: dict[str, Any] = {}
    for left in reversed(range(_TRIES)):
        try:
            with engine_faults("asking for its disk use"):
                said = _disk_use(engine, "image", "build-cache")
            break
        except NoSpaceError:
            return None
        except PreconditionError as error:
            # Engine 28 stumbles over a snapshot that somebody else removes while it counts
            if not left or "not found" not in error.message:
                raise
            time.sleep(_BETWEEN)
    layers = said.get("LayersSize") or (said.get("ImageUsage") or {}).get("TotalSize") or 0
    return Figures(int(layers), _cache(said))


def figures_aside(engine: Engine) -> Callable[[], Figures | None]:
    """Ask for the figures, for which an engine takes its time to count; what is returned waits for its answer."""
    aside = ThreadPoolExecutor(1)
    answer = aside.submit(figures, engine)
    aside.shutdown(wait=False)
    return answer.result


def _disk_use(engine: Engine, *kinds: str) -> dict[str, Any]:
    api = engine.api
    said: dict[str, Any] = api._result(api._get(api._url("/system/df"), params={"type": kinds}), json=True)
    return said


def _cache(said: dict[str, Any]) -> int:
    cached = said.get("BuildCache")
    if cached is None:
        cached = (said.get("BuildCacheUsage") or {}).get("Items")
    # what is shared with an image is the image's: it would not be freed with the cache
    return sum(int(each["Size"]) for each in cached or () if not each.get("Shared"))


def owns_builder(engine: Engine) -> bool:
    """Whether the builder is Lyra's: that of its own sandbox; any other one serves others, too."""
    return engine.facts.sandboxed


@engine_faults("shrinking the builder cache")
def shrink_cache(engine: Engine, keep: int) -> None:
    """Drop what was used longest ago from the builder cache until it has at most `keep` bytes.

    Does nothing in an engine whose builder is not ours. A build that has just ended holds on to some for a moment.
    """
    if not owns_builder(engine):
        return
    api = engine.streams
    # the older and the newer names of the same limit; an engine passes over those that it does not know
    limits = {"all": "true", "keep-storage": str(keep), "reserved-space": str(keep), "max-used-space": str(keep)}
    for _ in range(_TRIES):
        if _cache(_disk_use(engine, "build-cache")) <= keep:
            return
        api._result(api._post(api._url("/build/prune"), params=limits), json=True)
        time.sleep(_BETWEEN)
