"""Admission (R10): limits are promised only where the host can keep them, together with what other labs hold."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.engine import objects
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import LABEL_NONCE, LABEL_PROJECT
from lyra_tasks.errors import OvercommitError, PreconditionError
from lyra_tasks.run import locked

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_PATIENCE = 120.0
_COUNT = ["created", "running", "paused", "restarting"]


@dataclass(frozen=True)
class Share:
    """CPUs and memory that somebody holds or asks for."""

    who: str
    cpus: float
    memory: int


@dataclass(frozen=True)
class Capacity:
    """What labs may have of the host together: CPUs and bytes; of all who ask for it, one at a time has the `lock`."""

    cpus: float
    memory: int
    lock: Path


def capacity_of(work: Workspace) -> Capacity:
    """The share of the engine's host that `host_share` leaves to labs."""
    share, facts = work.config.resources.host_share, work.engine.facts
    name = hashlib.sha256(facts.id.encode()).hexdigest()[:16]
    return Capacity(facts.cpus * share, int(facts.memory * share), work.paths.cache / "admission" / f"{name}.lock")


@contextmanager
def admitted(
    engine: Engine,
    asked: Collection[Share],
    capacity: Capacity,
    *,
    parties: Collection[str] = ("",),
    without: Collection[str] = (),
) -> Iterator[Callable[[str], None]]:
    """Admit `asked`, and keep others from being admitted until it is there for them to be counted.

    That is when each of the `parties` was given to what this yields, or at the end of the block. OvercommitError as
    `admit`; LockedError where another one takes too long.
    """
    left, one_at_a_time = set(parties), threading.Lock()
    with ExitStack() as held:
        held.enter_context(locked(capacity.lock, what="the admission of labs", wait=_PATIENCE))
        admit(asked, held_by_labs(engine, without=without), capacity)

        def made(party: str) -> None:
            with one_at_a_time:
                left.discard(party)
                if not left:
                    held.close()

        yield made


def held_by_labs(engine: Engine, *, without: Collection[str] = ()) -> tuple[Share, ...]:
    """What containers of every Lyra project on this engine hold, or will once they are started, by their own limits.

    Those whose ids are in `without` are about to go.
    """
    api = engine.api
    shares = []
    with engine_faults("counting what other labs hold"):
        for container in api.containers(all=True, filters={"label": LABEL_NONCE, "status": _COUNT}):
            if container["Id"] in without:
                continue
            host = objects.host_config_if_there(engine, container["Id"])
            if host is None:
                continue  # its lab has been taken away meanwhile
            who = f"{container['Labels'].get(LABEL_PROJECT, '?')} {container['Names'][0].lstrip('/')}"
            shares.append(Share(who, host["NanoCpus"] / 1e9, int(host["Memory"])))
    return tuple(shares)


def admit(asked: Collection[Share], held: Collection[Share], capacity: Capacity) -> None:
    """OvercommitError with a table of who holds what, if `asked` and `held` exceed what there is."""
    every = [*held, *asked]
    cpus_needed, memory_needed = sum(each.cpus for each in every), sum(each.memory for each in every)
    problems = []
    if cpus_needed > capacity.cpus + 1e-9:
        problems.append(f"{cpus_needed:g} CPUs of {capacity.cpus:g}")
    if memory_needed > capacity.memory:
        problems.append(f"{console.size(memory_needed)} of memory of {console.size(capacity.memory)}")
    if problems:
        rows = [f"{each.who:<40} {each.cpus:>6g} CPUs {console.size(each.memory):>10}" for each in every]
        raise OvercommitError(
            f"the limits do not fit into this host's share for labs: {' and '.join(problems)}",
            hint="lower [services.*.limits], end another lab, or raise [resources] host_share (LYRA_HOST_SHARE)",
            details=tuple(rows),
        )


def require_limits(name: str, warnings: Collection[str]) -> None:
    """PreconditionError if the engine said of a container that it does not enforce a limit."""
    lost = [warning for warning in warnings if "limit" in warning.lower() or "discarded" in warning.lower()]
    if lost:
        raise PreconditionError(
            f"the engine does not enforce the limits of {name}: {'; '.join(lost)}",
            hint="use an engine whose kernel has the memory, cpu and pids controllers",
        )
