"""Removal of our objects from an engine: what holds on to others first, the rest beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_WORKERS = 16
_MAX_PARALLEL_NETWORKS = 2  # an engine removes networks one after the other; a second keeps that line moving
_DETACHED_STATES = frozenset({"created", "exited"})


@dataclass
class RemovalResult:
    """Removed objects, those that are left with the engine's reason, and an error that ended the removal early."""

    removed: list[OwnedObject] = field(default_factory=list)
    failed: dict[OwnedObject, str] = field(default_factory=dict)
    error: LyraError | None = None


class RemovalOrder(NamedTuple):
    """Objects in the order of removal: attached containers, then networks beside other containers, then the rest."""

    attached_containers: list[OwnedObject]
    networks: list[OwnedObject]
    detached_containers: list[OwnedObject]
    others: list[OwnedObject]


def remove_objects(engine: Engine, objects: Iterable[OwnedObject]) -> tuple[list[OwnedObject], dict[OwnedObject, str]]:
    """Remove `objects`; return the removed ones, and the others with the engine's reason."""
    result = remove_in_order(engine, objects)
    if result.error is not None:
        raise result.error
    return result.removed, result.failed


def remove_in_order(
    engine: Engine, objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject] = ()
) -> RemovalResult:
    """Remove `objects`; the states of containers in `engine_objects` tell which of them keep networks busy.

    Containers are killed, not stopped: they are temporary, and one that ignores SIGTERM must not hold up the rest.
    An object that somebody else removed meanwhile counts as removed. An engine that stops answering ends it early.
    """
    order = plan_removal(objects, engine_objects)
    result = RemovalResult()

    def remove(item: OwnedObject) -> None:
        if result.error is not None:
            return
        try:
            reason = _remove(engine, item)
        except LyraError as error:
            result.error = result.error or error
            return
        if reason is None:
            result.removed.append(item)
        else:
            result.failed[item] = reason

    with ThreadPoolExecutor(_MAX_PARALLEL_NETWORKS) as network_pool, ThreadPoolExecutor(_MAX_WORKERS) as pool:
        attached, detached = pool.map(remove, order.attached_containers), pool.map(remove, order.detached_containers)
        list(attached)
        networks = network_pool.map(remove, order.networks)
        list(detached)
        list(pool.map(remove, order.others))
        list(networks)
    return result


def plan_removal(objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject]) -> RemovalOrder:
    """Sort objects by when they can go: a container of unknown state counts as attached to its networks."""
    states = {container.id: container.state for container in engine_objects if container.kind == CONTAINER}
    order = RemovalOrder([], [], [], [])
    for item in objects:
        if item.kind == NETWORK:
            order.networks.append(item)
        elif item.kind != CONTAINER:
            order.others.append(item)
        elif states.get(item.id) in _DETACHED_STATES:
            order.detached_containers.append(item)
        else:
            order.attached_containers.append(item)
    return order


def _remove(engine: Engine, item: OwnedObject) -> str | None:
    """Remove one object; return the engine's reason if it refuses."""
    from docker.errors import APIError, NotFound

    api = engine.api
    removers: dict[str, Callable[[], object]] = {
        CONTAINER: lambda: api.remove_container(item.id, force=True, v=True),
        NETWORK: lambda: api.remove_network(item.id),
        VOLUME: lambda: api.remove_volume(item.id, force=True),
        IMAGE: lambda: api.remove_image(item.name, noprune=False),
    }
    with translate_errors(f"removing the {item.kind} {item.name}"):
        try:
            removers[item.kind]()
        except NotFound:
            return None
        except APIError as error:
            return str(error.explanation or error)
    return None
