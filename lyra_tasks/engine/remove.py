"""Removing objects of ours: networks are freed first, then all go as soon as nothing stands in their way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import CONTAINER, IMAGE, NETWORK, VOLUME, Owned
from lyra_tasks.engine.things import Thing
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

# An engine removes networks one after the other, each waiting long for the kernel: two keep that line moving. Few
# running containers are taken off theirs first, in half the time that ending them takes, so that it begins soon, and
# all else goes one by one as long as it keeps up with the networks, and never more at once than there are processors:
# it would only keep the networks waiting. Where containers are most of the work, one call for each and many at once are
# faster by a third.
_NETWORKS = 2
_FEW = 4  # running containers for each network
_PACE = 12  # of all else, one after the other, while one network goes
_WIDER = 4
_MOST = 48
_LINE, _LEAVING, _REST = range(3)  # the lanes, in the order in which their steps begin
_PATIENCE = 1.0  # seconds without an answer, after which twice as much is asked for: something there is stuck

_RUNNING = frozenset({"running", "paused"})
_APART = frozenset({"created", "exited"})


@dataclass
class Removal:
    """What came of it: what is gone, what is left with the engine's reason, and a fault that ended it early."""

    gone: list[Owned] = field(default_factory=list)
    left: dict[Owned, str] = field(default_factory=dict)
    fault: LyraError | None = None


@dataclass(frozen=True)
class Step:
    """One call to the engine: to remove an object, or first to take a container off a network that it `leaves`."""

    item: Owned
    leaves: str = ""


Finished = SimpleQueue[tuple[Step, Future[str | None]]]


def remove(engine: Engine, objects: Iterable[Owned]) -> tuple[list[Owned], dict[Owned, str]]:
    """Remove `objects`; returns those that are gone, and those that are not with the engine's reason."""
    done = removal(engine, objects)
    if done.fault is not None:
        raise done.fault
    return done.gone, done.left


def removal(engine: Engine, objects: Iterable[Owned], things: Iterable[Thing] = ()) -> Removal:
    """Remove `objects`, each as soon as no container in `things` is in its way (not known: no container at all).

    Containers are killed, not stopped: they are temporary, and one that ignores SIGTERM must not hold up the rest.
    An object that somebody else removed meanwhile is gone. An engine that stops answering ends it early.
    """
    waiting = steps(objects, things)
    done, running = Removal(), Counter[int]()
    processors = max(engine.facts.cpus, 2)
    feeding = any(step.leaves for step in waiting)
    lanes = [_NETWORKS, processors, processors if feeding else _WIDER * processors]
    pace = _PACE if feeding else 0
    finished: Finished = SimpleQueue()

    def submit_ready() -> None:
        left = Counter(_lane(step) for step in waiting) + running
        keeps_up = left[_REST] < pace * left[_LINE]
        ready = [step for step, before in waiting.items() if not before]
        for step in sorted(ready, key=_lane):
            lane = _lane(step)
            if running[lane] < (1 if lane == _REST and keeps_up else lanes[lane]):
                running[lane] += 1
                del waiting[step]
                future = pool.submit(_make, engine, step)
                future.add_done_callback(partial(_put, finished, step))

    with ThreadPoolExecutor(_MOST * len(lanes)) as pool:
        submit_ready()
        while running.total():
            try:
                step, future = finished.get(timeout=_PATIENCE)
            except Empty:
                lanes, pace = [min(2 * limit, _MOST) for limit in lanes], 0
            else:
                running[_lane(step)] -= 1
                _note(done, step, future)
                for before in waiting.values():
                    before.discard(step)
            if done.fault is not None:
                waiting.clear()
            submit_ready()
    return done


def steps(objects: Iterable[Owned], things: Iterable[Thing]) -> dict[Step, set[Step]]:
    """What has to be done, and what before it.

    A network is free once its running containers have left it, a volume or an image only when all of them are removed.
    Containers leave by a step of their own where that lets the line of networks begin sooner.
    """
    todo = list(objects)
    known = {each.id: each for each in things if each.kind == CONTAINER}
    users: dict[tuple[str, str], list[Owned]] = {}
    unknown = []
    found: dict[Step, set[Step]] = {}
    apart = {each.id for each in todo if each.id in known and known[each.id].state in _RUNNING}
    freed = {each.name for each in todo if each.kind == NETWORK}
    if len(apart) > _FEW * len(freed):
        apart = set()
    for each in sorted((each for each in todo if each.kind == CONTAINER), key=lambda each: _networks(known, each)):
        container = known.get(each.id)
        if container is None:
            unknown.append(each)
        for key in container.uses if container else ():
            users.setdefault(key, []).append(each)
        networks = freed.intersection(_networks(known, each)) if each.id in apart else ()
        leaving = [Step(each, leaves=name) for name in sorted(networks)]
        found |= {**{step: set() for step in leaving}, Step(each): set(leaving)}
    for each in todo:
        if each.kind != CONTAINER:
            mine = [*unknown, *users.get((each.kind, each.id if each.kind == IMAGE else each.name), ())]
            ways = (_way(each, user, known.get(user.id), apart) for user in mine)
            found[Step(each)] = {way for way in ways if way}
    return found


def _way(item: Owned, user: Owned, container: Thing | None, apart: Set[str]) -> Step | None:
    """What frees an object of one container that uses it, of which some leave first; None if nothing has to."""
    if container is None or item.kind != NETWORK:
        return Step(user)
    return None if container.state in _APART else Step(user, leaves=item.name if user.id in apart else "")


def _networks(known: Mapping[str, Thing], item: Owned) -> list[str]:
    """Containers go network by network, so that the first of those is free soon."""
    return sorted(name for kind, name in known[item.id].uses if kind == NETWORK) if item.id in known else []


def _lane(step: Step) -> int:
    """The lane of a step; networks take longest, and then comes what they wait for."""
    return _LINE if step.item.kind == NETWORK else _LEAVING if step.leaves else _REST


def _put(finished: Finished, step: Step, future: Future[str | None]) -> None:
    finished.put((step, future))


def _note(done: Removal, step: Step, future: Future[str | None]) -> None:
    try:
        reason = future.result()
    except LyraError as error:
        done.fault = done.fault or error
        return
    if step.leaves:
        return  # removing it takes it off once more if need be, and that tells
    if reason is None:
        done.gone.append(step.item)
    else:
        done.left[step.item] = reason


def _make(engine: Engine, step: Step) -> str | None:
    """Make the call; returns the engine's reason if it refuses."""
    from docker.errors import APIError, NotFound

    api, item = engine.api, step.item
    removers: dict[str, Callable[[], object]] = {
        CONTAINER: lambda: api.remove_container(item.id, force=True, v=True),
        NETWORK: lambda: api.remove_network(item.id),
        VOLUME: lambda: api.remove_volume(item.id, force=True),
        IMAGE: lambda: api.remove_image(item.name, noprune=False),
    }
    with engine_faults(f"removing the {item.kind} {item.name}"):
        try:
            if step.leaves:
                api.disconnect_container_from_network(item.id, step.leaves, force=True)
            else:
                removers[item.kind]()
        except NotFound:
            return None
        except APIError as error:
            return str(error.explanation or error)
    return None
