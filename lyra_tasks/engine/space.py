"""The engine's own figures of its disk, and the builder cache: looked at everywhere, emptied only where it is ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.faults import engine_faults

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


@dataclass(frozen=True)
class Figures:
    """Bytes that the engine says its image layers and its builder cache take."""

    layers: int
    cache: int


@engine_faults("asking for its disk use")
def figures(engine: Engine) -> Figures:
    """What the engine says of its disk; volumes are left out, which it would have to walk through."""
    api = engine.api
    said: dict[str, Any] = api._result(
        api._get(api._url("/system/df"), params={"type": ["image", "build-cache"]}), json=True
    )
    layers = said.get("LayersSize") or (said.get("ImageUsage") or {}).get("TotalSize") or 0
    cached = said.get("BuildCache")
    if cached is None:
        cached = (said.get("BuildCacheUsage") or {}).get("Items")
    # what several records share is counted once, as `docker system df` does
    cache = sum(each["Size"] for each in cached or () if not each.get("Shared"))
    return Figures(int(layers), int(cache))


def owns_builder(engine: Engine) -> bool:
    """Whether the builder is Lyra's: that of its own sandbox; any other one serves others, too."""
    return engine.facts.sandboxed


def shrink_cache(engine: Engine, keep: int) -> int:
    """Drop what was used longest ago from the builder cache until it has at most `keep` bytes; returns bytes freed.

    Does nothing in an engine whose builder is not ours.
    """
    if not owns_builder(engine):
        return 0
    api = engine.streams
    with engine_faults("shrinking the builder cache"):
        # the older and the newer name of the same limit; an engine passes over the one that it does not know
        limits = {"all": "true", "keep-storage": str(keep), "reserved-space": str(keep), "max-used-space": str(keep)}
        said: dict[str, Any] = api._result(api._post(api._url("/build/prune"), params=limits), json=True)
    return int(said.get("SpaceReclaimed") or 0)
