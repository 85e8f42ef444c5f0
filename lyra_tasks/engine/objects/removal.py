"""Removing objects of ours: networks are freed first, then all go as soon as nothing stands in their way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import EngineObject
from lyra_tasks.engine.objects.ownership import CONTAINER, IMAGE, NETWORK, VOLUME, OwnedObject
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

# An engine removes networks one after the other, each waiting long for the kernel: two keep that line moving. Few
# running containers are taken off theirs first, in half the time that ending them takes, so that it begins soon, and
# all else goes one by one as long as it keeps up with the networks, and never more at once than there are processors:
# it would only keep the networks waiting. Where containers are most of the work, one call for each and many at once are
# faster by a third.
_MAX_PARALLEL_NETWORKS = 2
_MAX_DISCONNECTS_PER_NETWORK = 4  # running containers for each network
_REMOVALS_PER_NETWORK = 12  # of all else, one after the other, while one network goes
_PARALLEL_FACTOR = 4
_MAX_WORKERS = 48
_NETWORK_LANE, _DISCONNECT_LANE, _OTHER_LANE = range(3)  # the lanes, in the order in which their steps begin
_STALL_TIMEOUT_S = 1.0  # seconds without an answer, after which twice as much is asked for: something there is stuck

_RUNNING_STATES = frozenset({"running", "paused"})
_DETACHED_STATES = frozenset({"created", "exited"})


@dataclass
class RemovalResult:
    """What came of it: what is gone, what is left with the engine's reason, and a fault that ended it early."""

    removed: list[OwnedObject] = field(default_factory=list)
    failed: dict[OwnedObject, str] = field(default_factory=dict)
    error: LyraError | None = None


@dataclass(frozen=True)
class RemovalStep:
    """One call to the engine: to remove an object, or first to take a container off a network that it `leaves`."""

    item: OwnedObject
    disconnect_from: str = ""


FinishedQueue = SimpleQueue[tuple[RemovalStep, Future[str | None]]]


def remove_objects(engine: Engine, objects: Iterable[OwnedObject]) -> tuple[list[OwnedObject], dict[OwnedObject, str]]:
    """Remove `objects`; returns those that are gone, and those that are not with the engine's reason."""
    result = remove_in_order(engine, objects)
    if result.error is not None:
        raise result.error
    return result.removed, result.failed


def remove_in_order(
    engine: Engine, objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject] = ()
) -> RemovalResult:
    """Remove `objects`, each as soon as no container in `things` is in its way (not known: no container at all).

    Containers are killed, not stopped: they are temporary, and one that ignores SIGTERM must not hold up the rest.
    An object that somebody else removed meanwhile is gone. An engine that stops answering ends it early.
    """
    waiting = plan_removal_steps(objects, engine_objects)
    result, running = RemovalResult(), Counter[int]()
    processors = max(engine.facts.cpus, 2)
    has_disconnects = any(step.disconnect_from for step in waiting)
    lanes = [_MAX_PARALLEL_NETWORKS, processors, processors if has_disconnects else _PARALLEL_FACTOR * processors]
    pace = _REMOVALS_PER_NETWORK if has_disconnects else 0
    finished: FinishedQueue = SimpleQueue()

    def submit_ready() -> None:
        remaining = Counter(_lane(step) for step in waiting) + running
        keeps_up = remaining[_OTHER_LANE] < pace * remaining[_NETWORK_LANE]
        ready = [step for step, blockers in waiting.items() if not blockers]
        for step in sorted(ready, key=_lane):
            lane = _lane(step)
            if running[lane] < (1 if lane == _OTHER_LANE and keeps_up else lanes[lane]):
                running[lane] += 1
                del waiting[step]
                future = pool.submit(_execute_step, engine, step)
                future.add_done_callback(partial(_enqueue, finished, step))

    with ThreadPoolExecutor(_MAX_WORKERS * len(lanes)) as pool:
        submit_ready()
        while running.total():
            try:
                step, future = finished.get(timeout=_STALL_TIMEOUT_S)
            except Empty:
                lanes, pace = [min(2 * limit, _MAX_WORKERS) for limit in lanes], 0
            else:
                running[_lane(step)] -= 1
                _record_outcome(result, step, future)
                for blockers in waiting.values():
                    blockers.discard(step)
            if result.error is not None:
                waiting.clear()
            submit_ready()
    return result


def plan_removal_steps(
    objects: Iterable[OwnedObject], engine_objects: Iterable[EngineObject]
) -> dict[RemovalStep, set[RemovalStep]]:
    """What has to be done, and what before it.

    A network is free once its running containers have left it, a volume or an image only when all of them are removed.
    Containers leave by a step of their own where that lets the line of networks begin sooner.
    """
    objects_to_remove = list(objects)
    containers_by_id = {
        engine_object.id: engine_object for engine_object in engine_objects if engine_object.kind == CONTAINER
    }
    users: dict[tuple[str, str], list[OwnedObject]] = {}
    unlisted = []
    blockers_by_step: dict[RemovalStep, set[RemovalStep]] = {}
    running_ids = {
        item.id
        for item in objects_to_remove
        if item.id in containers_by_id and containers_by_id[item.id].state in _RUNNING_STATES
    }
    network_names = {item.name for item in objects_to_remove if item.kind == NETWORK}
    if len(running_ids) > _MAX_DISCONNECTS_PER_NETWORK * len(network_names):
        running_ids = set()
    for item in sorted(
        (item for item in objects_to_remove if item.kind == CONTAINER),
        key=lambda item: _network_names(containers_by_id, item),
    ):
        container = containers_by_id.get(item.id)
        if container is None:
            unlisted.append(item)
        for key in container.uses if container else ():
            users.setdefault(key, []).append(item)
        networks = network_names.intersection(_network_names(containers_by_id, item)) if item.id in running_ids else ()
        disconnects = [RemovalStep(item, disconnect_from=name) for name in sorted(networks)]
        blockers_by_step |= {**{step: set() for step in disconnects}, RemovalStep(item): set(disconnects)}
    for item in objects_to_remove:
        if item.kind != CONTAINER:
            user_objects = [*unlisted, *users.get((item.kind, item.id if item.kind == IMAGE else item.name), ())]
            blocking_steps = (
                _blocking_step(item, user, containers_by_id.get(user.id), running_ids) for user in user_objects
            )
            blockers_by_step[RemovalStep(item)] = {step for step in blocking_steps if step}
    return blockers_by_step


def _blocking_step(
    item: OwnedObject, user: OwnedObject, container: EngineObject | None, running_ids: Set[str]
) -> RemovalStep | None:
    """What frees an object of one container that uses it, of which some leave first; None if nothing has to."""
    if container is None or item.kind != NETWORK:
        return RemovalStep(user)
    return (
        None
        if container.state in _DETACHED_STATES
        else RemovalStep(user, disconnect_from=item.name if user.id in running_ids else "")
    )


def _network_names(containers_by_id: Mapping[str, EngineObject], item: OwnedObject) -> list[str]:
    """Containers go network by network, so that the first of those is free soon."""
    return (
        sorted(name for kind, name in containers_by_id[item.id].uses if kind == NETWORK)
        if item.id in containers_by_id
        else []
    )


def _lane(step: RemovalStep) -> int:
    """The lane of a step; networks take longest, and then comes what they wait for."""
    return _NETWORK_LANE if step.item.kind == NETWORK else _DISCONNECT_LANE if step.disconnect_from else _OTHER_LANE


def _enqueue(finished: FinishedQueue, step: RemovalStep, future: Future[str | None]) -> None:
    finished.put((step, future))


def _record_outcome(result: RemovalResult, step: RemovalStep, future: Future[str | None]) -> None:
    try:
        reason = future.result()
    except LyraError as error:
        result.error = result.error or error
        return
    if step.disconnect_from:
        return  # removing it takes it off once more if need be, and that tells
    if reason is None:
        result.removed.append(step.item)
    else:
        result.failed[step.item] = reason


def _execute_step(engine: Engine, step: RemovalStep) -> str | None:
    """Make the call; returns the engine's reason if it refuses."""
    from docker.errors import APIError, NotFound

    api, item = engine.api, step.item
    removers: dict[str, Callable[[], object]] = {
        CONTAINER: lambda: api.remove_container(item.id, force=True, v=True),
        NETWORK: lambda: api.remove_network(item.id),
        VOLUME: lambda: api.remove_volume(item.id, force=True),
        IMAGE: lambda: api.remove_image(item.name, noprune=False),
    }
    with translate_errors(f"removing the {item.kind} {item.name}"):
        try:
            if step.disconnect_from:
                api.disconnect_container_from_network(item.id, step.disconnect_from, force=True)
            else:
                removers[item.kind]()
        except NotFound:
            return None
        except APIError as error:
            return str(error.explanation or error)
    return None
