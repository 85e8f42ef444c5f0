"""Removing objects of ours: containers first, then what they held on to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import CONTAINER, IMAGE, NETWORK, VOLUME, Owned
from lyra_tasks.engine.things import Thing
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_AT_ONCE = 50  # as the docker command itself; most of the time the engine waits for its disk


@dataclass
class Removal:
    """What came of it: what is gone, what is left with the engine's reason, and a fault that ended it early."""

    gone: list[Owned] = field(default_factory=list)
    left: dict[Owned, str] = field(default_factory=dict)
    fault: LyraError | None = None


def remove(engine: Engine, objects: Iterable[Owned]) -> tuple[list[Owned], dict[Owned, str]]:
    """Remove `objects`; returns those that are gone, and those that are not with the engine's reason."""
    done = removal(engine, objects)
    if done.fault is not None:
        raise done.fault
    return done.gone, done.left


def removal(engine: Engine, objects: Iterable[Owned], things: Iterable[Thing] = ()) -> Removal:
    """Remove `objects`, each as soon as no container in `things` uses it that goes as well (not known: no container).

    Containers are killed, not stopped: they are temporary, and one that ignores SIGTERM must not hold up the rest.
    An object that somebody else removed meanwhile is gone. An engine that stops answering ends it early.
    """
    todo = list(objects)
    waits = _waits(todo, {each.id: each for each in things if each.kind == CONTAINER})
    done = Removal()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running: dict[Future[str | None], Owned] = {}

        def submit_ready() -> None:
            for each in [each for each, users in waits.items() if not users]:
                del waits[each]
                running[pool.submit(_remove, engine, each)] = each

        submit_ready()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                _note(done, item, future)
                for users in waits.values():
                    users.discard(item.id)
            if done.fault is not None:
                waits.clear()
                for future in running:
                    future.cancel()
                running = {future: item for future, item in running.items() if not future.cancelled()}
            submit_ready()
    return done


def _waits(todo: list[Owned], containers: dict[str, Thing]) -> dict[Owned, set[str]]:
    """By object, the ids of the containers that go before it."""
    going = {each.id for each in todo if each.kind == CONTAINER}
    users: dict[tuple[str, str], set[str]] = {}
    unknown = going - containers.keys()
    for identity in going & containers.keys():
        for key in containers[identity].uses:
            users.setdefault(key, set()).add(identity)
    return {
        each: set()
        if each.kind == CONTAINER
        else unknown | users.get((each.kind, each.id if each.kind == IMAGE else each.name), set())
        for each in todo
    }


def _note(done: Removal, item: Owned, future: Future[str | None]) -> None:
    try:
        reason = future.result()
    except LyraError as error:
        done.fault = done.fault or error
        return
    if reason is None:
        done.gone.append(item)
    else:
        done.left[item] = reason


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
