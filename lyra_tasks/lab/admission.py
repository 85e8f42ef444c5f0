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
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import find_host_config
from lyra_tasks.engine.objects.ownership import LABEL_NONCE, LABEL_PROJECT
from lyra_tasks.errors import OvercommitError, PreconditionError
from lyra_tasks.locks import file_lock

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_LOCK_TIMEOUT_S = 120.0
_COUNTED_STATES = ["created", "running", "paused", "restarting"]


@dataclass(frozen=True)
class Reservation:
    """CPUs and memory that somebody holds or asks for."""

    name: str
    cpus: float
    memory: int


@dataclass(frozen=True)
class Capacity:
    """What labs may have of the host together: CPUs and bytes; of all who ask for it, one at a time has the `lock`."""

    cpus: float
    memory: int
    lock: Path


def compute_lab_capacity(work: Workspace) -> Capacity:
    """The share of the engine's host that `host_share` leaves to labs."""
    share, facts = work.config.resources.host_share, work.engine.facts
    name = hashlib.sha256(facts.id.encode()).hexdigest()[:16]
    return Capacity(facts.cpus * share, int(facts.memory * share), work.paths.cache / "admission" / f"{name}.lock")


@contextmanager
def reserve_capacity(
    engine: Engine,
    requested: Collection[Reservation],
    capacity: Capacity,
    *,
    lab_names: Collection[str] = ("",),
    excluding: Collection[str] = (),
) -> Iterator[Callable[[str], None]]:
    """Admit `asked`, and keep others from being admitted until it is there for them to be counted.

    That is when each of the `parties` was given to what this yields, or at the end of the block. OvercommitError as
    `admit`; LockedError where another one takes too long.
    """
    pending, mutex = set(lab_names), threading.Lock()
    with ExitStack() as lock_stack:
        lock_stack.enter_context(file_lock(capacity.lock, resource="the admission of labs", timeout=_LOCK_TIMEOUT_S))
        require_capacity(requested, list_reservations(engine, excluding=excluding), capacity)

        def mark_created(lab_name: str) -> None:
            with mutex:
                pending.discard(lab_name)
                if not pending:
                    lock_stack.close()

        yield mark_created


def list_reservations(engine: Engine, *, excluding: Collection[str] = ()) -> tuple[Reservation, ...]:
    """What containers of every Lyra project on this engine hold, or will once they are started, by their own limits.

    Those whose ids are in `without` are about to go.
    """
    api = engine.api
    reservations = []
    with translate_errors("counting what other labs hold"):
        for container in api.containers(all=True, filters={"label": LABEL_NONCE, "status": _COUNTED_STATES}):
            if container["Id"] in excluding:
                continue
            host_config_document = find_host_config(engine, container["Id"])
            if host_config_document is None:
                continue  # its lab has been taken away meanwhile
            name = f"{container['Labels'].get(LABEL_PROJECT, '?')} {container['Names'][0].lstrip('/')}"
            reservations.append(
                Reservation(name, host_config_document["NanoCpus"] / 1e9, int(host_config_document["Memory"]))
            )
    return tuple(reservations)


def require_capacity(requested: Collection[Reservation], reserved: Collection[Reservation], capacity: Capacity) -> None:
    """OvercommitError with a table of who holds what, if `asked` and `held` exceed what there is."""
    reservations = [*reserved, *requested]
    cpus_needed, memory_needed = (
        sum(reservation.cpus for reservation in reservations),
        sum(reservation.memory for reservation in reservations),
    )
    shortages = []
    if cpus_needed > capacity.cpus + 1e-9:
        shortages.append(f"{cpus_needed:g} CPUs of {capacity.cpus:g}")
    if memory_needed > capacity.memory:
        shortages.append(f"{console.format_bytes(memory_needed)} of memory of {console.format_bytes(capacity.memory)}")
    if shortages:
        rows = [
            f"{reservation.name:<40} {reservation.cpus:>6g} CPUs {console.format_bytes(reservation.memory):>10}"
            for reservation in reservations
        ]
        raise OvercommitError(
            f"the limits do not fit into this host's share for labs: {' and '.join(shortages)}",
            hint="lower [services.*.limits], end another lab, or raise [resources] host_share (LYRA_HOST_SHARE)",
            details=tuple(rows),
        )


def require_limits(name: str, warnings: Collection[str]) -> None:
    """PreconditionError if the engine said of a container that it does not enforce a limit."""
    unsupported = [warning for warning in warnings if "limit" in warning.lower() or "discarded" in warning.lower()]
    if unsupported:
        raise PreconditionError(
            f"the engine does not enforce the limits of {name}: {'; '.join(unsupported)}",
            hint="use an engine whose kernel has the memory, cpu and pids controllers",
        )
