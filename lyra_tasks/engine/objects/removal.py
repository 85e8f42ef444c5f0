"""Removal of our objects from an engine: what holds on to others first, the rest beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import (
    CONTAINER,
    IMAGE,
    NETWORK,
    VOLUME,
    EngineObject,
    list_labelled_objects,
)
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner, read_object_entries, select_owned_objects
from lyra_tasks.errors import LeftoverError, LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_WORKERS_PER_PROCESSOR = 4
_CONTAINERS_PER_NETWORK = 2.5  # that are removed in the time of one network
_MAX_PARALLEL_NETWORKS = 2  # an engine removes networks one after the other; a second keeps that line moving
_MAX_RUN_ATTEMPTS = 3
_RETRY_INTERVAL_S = 0.25
_DETACHED_STATES = frozenset({"created", "exited"})


@dataclass
class RemovalResult:
    """Removed objects, those that are left with the engine's reason, and an error that ended the removal early."""

    removed: list[OwnedObject] = field(default_factory=list)
    failed: dict[OwnedObject, str] = field(default_factory=dict)
    error: LyraError | None = None


class RemovalOrder(NamedTuple):
    """Objects in the order of removal; each network comes with the containers that must be removed before it."""

    attached_containers: list[OwnedObject]
    networks: list[tuple[OwnedObject, list[OwnedObject]]]
    detached_containers: list[OwnedObject]
    others: list[OwnedObject]

    def count_workers(self, processors: int) -> int:
        """Return how many attached containers to remove at once: as many as leave the line of networks a processor."""
        if not self.networks:
            return _MAX_WORKERS_PER_PROCESSOR * processors
        work_per_network = len(self.attached_containers) / (_CONTAINERS_PER_NETWORK * len(self.networks))
        return round(processors * min(max(work_per_network, 1), _MAX_WORKERS_PER_PROCESSOR))


def remove_objects(
    engine: Engine, owner: Owner, objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject] = ()
) -> RemovalResult:
    """Remove `objects` and record in the journal which ones are gone, also if an error ends the removal early."""
    result = remove_in_order(engine, objects, engine_objects)
    owner.record_removed(engine, result.removed)
    if result.error is not None:
        raise result.error
    return result


def remove_run(engine: Engine, owner: Owner, prefix: str = "") -> None:
    """Remove all objects of a run whose names begin with `prefix`; raise LeftoverError if some remain."""
    failures: dict[OwnedObject, str] = {}
    for attempt in range(_MAX_RUN_ATTEMPTS):
        engine_objects = list_labelled_objects(engine)
        owned_objects = select_owned_objects(engine, engine_objects, read_object_entries(owner.journal), run=owner.run)
        matches = [candidate for candidate in owned_objects if candidate.name.startswith(prefix)]
        if not matches:
            return
        # another process, such as `clean`, may be removing the same object right now
        time.sleep(_RETRY_INTERVAL_S * attempt)
        failures = remove_objects(engine, owner, matches, engine_objects).failed
    if failures:
        raise LeftoverError(
            f"Cannot remove {len(failures)} object(s) of this run",
            hint="Run `clean`",
            details=tuple(f"{item.kind} {item.name}: {reason}" for item, reason in failures.items()),
        )


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

    processors = max(engine.facts.cpus, 2)
    with (
        ThreadPoolExecutor(_MAX_PARALLEL_NETWORKS) as network_pool,
        ThreadPoolExecutor(order.count_workers(processors)) as attached_pool,
        ThreadPoolExecutor(processors) as pool,  # more would keep the networks waiting for a processor
    ):
        attached = {item: attached_pool.submit(remove, item) for item in order.attached_containers}

        def remove_network(network: OwnedObject, users: list[OwnedObject]) -> None:
            wait([attached[user] for user in users])
            remove(network)

        networks = [network_pool.submit(remove_network, *entry) for entry in order.networks]
        detached = [pool.submit(remove, item) for item in order.detached_containers]
        wait([*attached.values(), *detached])
        others = [pool.submit(remove, item) for item in order.others]
        for future in (*attached.values(), *detached, *networks, *others):
            future.result()
    return result


def plan_removal(objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject]) -> RemovalOrder:
    """Sort objects by when they can go: a container of unknown state counts as attached to every network."""
    containers = {item.id: item for item in engine_objects if item.kind == CONTAINER}
    order = RemovalOrder([], [], [], [])
    attached, networks = [], []
    for item in objects:
        container = containers.get(item.id)
        if item.kind == NETWORK:
            networks.append(item)
        elif item.kind != CONTAINER:
            order.others.append(item)
        elif container is not None and container.state in _DETACHED_STATES:
            order.detached_containers.append(item)
        else:
            attached.append(item)
    for network in networks:
        use = (NETWORK, network.name)
        users = [item for item in attached if item.id not in containers or use in containers[item.id].uses]
        order.networks.append((network, users))
    # network by network, so that the first of them is free soon
    by_network = [user for _, users in order.networks for user in users]
    order.attached_containers.extend(dict.fromkeys([*by_network, *attached]))
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
