"""Limits of labs (R10): reserve CPUs and memory on the host, and require that limits are enforced."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import find_host_config, read_container_state, read_host_config
from lyra_tasks.engine.objects.inventory import LABEL_NONCE, LABEL_PROJECT
from lyra_tasks.errors import OvercommitError, PreconditionError
from lyra_tasks.locks import file_lock

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.lab.service import RunningService

_LOCK_TIMEOUT_S = 120.0
_ROUNDING_ERROR = 1e-9
_CONTROLLERS_HINT = "Use an engine whose kernel has the memory, cpu and pids controllers"
_COUNTED_STATES = ["created", "running", "paused", "restarting"]


@dataclass(frozen=True)
class Reservation:
    """CPUs and memory (bytes) that a container has reserved or requests."""

    name: str
    cpus: float
    memory: int


@dataclass(frozen=True)
class Capacity:
    """CPUs and memory (bytes) of a host that all labs may use together; admission happens under the `lock`."""

    cpus: float
    memory: int
    lock: Path


def compute_lab_capacity(work: Workspace) -> Capacity:
    """Return the part of the engine's host that `host_share` leaves to labs."""
    share, facts = work.config.resources.host_share, work.engine.facts
    name = sha256_hex(facts.id.encode())[:16]
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
    """Check that `requested` fits, and hold the admission lock until the containers exist and are counted by others.

    Yields a function to call with each of the `lab_names` as soon as its containers exist; the last call, or the end of
    the block, releases the lock.
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
    """Return the limits of all containers of any Lyra project on this engine that run or may be started.

    Containers whose ids are in `excluding` are about to be removed, and do not count.
    """
    reservations = []
    with translate_errors("reading the limits of other labs"):
        for container in engine.api.containers(all=True, filters={"label": LABEL_NONCE, "status": _COUNTED_STATES}):
            if container["Id"] in excluding:
                continue
            limits = find_host_config(engine, container["Id"])
            if limits is None:
                continue  # removed in the meantime
            name = f"{container['Labels'].get(LABEL_PROJECT, '?')} {container['Names'][0].lstrip('/')}"
            reservations.append(Reservation(name, limits["NanoCpus"] / 1e9, int(limits["Memory"])))
    return tuple(reservations)


def count_parallel_builds(capacity_cpus: float, reserved: Collection[Reservation]) -> int:
    """Return how many images may be built at once: one for each CPU, or part of one, that environments leave.

    The engine limits neither CPUs nor memory of the steps of a build, and runs the stages of one image in parallel.
    """
    return max(1, math.ceil(capacity_cpus - sum(reservation.cpus for reservation in reserved) - _ROUNDING_ERROR))


def require_capacity(requested: Collection[Reservation], reserved: Collection[Reservation], capacity: Capacity) -> None:
    """Raise OvercommitError, with a table of all reservations, if they exceed the capacity."""
    reservations = [*reserved, *requested]
    cpus = sum(reservation.cpus for reservation in reservations)
    memory = sum(reservation.memory for reservation in reservations)
    shortages = {}
    if cpus > capacity.cpus + _ROUNDING_ERROR:
        shortages["CPUs"] = f"{console.format_count(cpus, 'CPU')} requested, {capacity.cpus:g} available"
    if memory > capacity.memory:
        shortages["memory"] = (
            f"{console.format_bytes(memory)} of memory requested, {console.format_bytes(capacity.memory)} available"
        )
    if shortages:
        raise OvercommitError(
            f"Not enough {' and '.join(shortages)} on this host: {'; '.join(shortages.values())}",
            hint="Lower [services.*.limits], stop another environment, "
            "or raise [resources] host_share (LYRA_HOST_SHARE)",
            details=tuple(
                f"{reservation.cpus:>5g} CPUs {console.format_bytes(reservation.memory):>10}  {reservation.name}"
                for reservation in reservations
            ),
        )


def require_limits(name: str, warnings: Collection[str]) -> None:
    """Raise PreconditionError if the engine warned that it does not enforce a limit of the container."""
    unsupported = [warning for warning in warnings if "limit" in warning.lower() or "discarded" in warning.lower()]
    if unsupported:
        raise PreconditionError(
            f"The engine does not enforce the limits of {name}: {'; '.join(unsupported)}",
            hint=_CONTROLLERS_HINT,
        )


def require_enforced_limits(service: RunningService) -> None:
    """Raise PreconditionError if the engine or the kernel does not enforce the limits of a running container."""
    planned = service.planned
    requested = planned.payload["HostConfig"]
    host_options = read_host_config(service.engine, service.id)
    mismatches = [
        f"{key}: requested {requested[key]}, in force {host_options.get(key)}"
        for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "ReadonlyRootfs")
        if host_options.get(key) != requested[key]
    ]
    is_running = planned.must_be_ready or read_container_state(service.engine, service.id).running
    if is_running and (sample := service.stats.sample_now()):
        for resource, actual, expected in (
            ("memory", sample.memory_limit, requested["Memory"]),
            ("pids", sample.pids_limit, requested["PidsLimit"]),
        ):
            if actual != expected:
                mismatches.append(f"{resource}: requested {expected}, the kernel enforces {actual}")
    if mismatches:
        raise PreconditionError(
            f"Limits of {planned.name} are not enforced",
            hint=_CONTROLLERS_HINT,
            details=tuple(mismatches),
        )
