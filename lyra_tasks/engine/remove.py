"""Removing objects of ours: containers first, then what they held on to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import CONTAINER, IMAGE, NETWORK, VOLUME, Owned

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_AT_ONCE = 8


def remove(engine: Engine, objects: Iterable[Owned]) -> tuple[list[Owned], dict[Owned, str]]:
    """Remove `objects`; returns those that are gone, and those that are not with the engine's reason.

    Containers are killed, not stopped: they are temporary, and one that ignores SIGTERM must not hold up the rest.
    An object that somebody else removed meanwhile is gone.
    """
    todo = list(objects)
    gone: list[Owned] = []
    left: dict[Owned, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for kinds in ((CONTAINER,), (NETWORK, VOLUME, IMAGE)):
            batch = [each for each in todo if each.kind in kinds]
            for each, reason in zip(batch, pool.map(lambda item: _remove(engine, item), batch), strict=True):
                if reason is None:
                    gone.append(each)
                else:
                    left[each] = reason
    return gone, left


def _remove(engine: Engine, item: Owned) -> str | None:
    from docker.errors import APIError, NotFound

    api = engine.api
    removers: dict[str, Callable[[], object]] = {
        CONTAINER: lambda: api.remove_container(item.id, force=True, v=True),
        NETWORK: lambda: api.remove_network(item.id),
        VOLUME: lambda: api.remove_volume(item.id, force=True),
        IMAGE: lambda: api.remove_image(item.name, noprune=False),
    }
    with engine_faults(f"removing the {item.kind} {item.name}"):
        try:
            removers[item.kind]()
        except NotFound:
            return None
        except APIError as error:
            return str(error.explanation or error)
    return None
