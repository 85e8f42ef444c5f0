"""Admission (R10): limits are promised only where the host can keep them, together with what other labs hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.engine import objects
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import LABEL_NONCE, LABEL_PROJECT
from lyra_tasks.errors import OvercommitError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


@dataclass(frozen=True)
class Share:
    """CPUs and memory that somebody holds or asks for."""

    who: str
    cpus: float
    memory: int


def held_by_labs(engine: Engine, *, without: Collection[str] = ()) -> tuple[Share, ...]:
    """What running containers of every Lyra project on this engine hold, by their own limits.

    Those whose ids are in `without` are about to go.
    """
    api = engine.api
    shares = []
    with engine_faults("counting what other labs hold"):
        for container in api.containers(filters={"label": LABEL_NONCE}):
            if container["Id"] in without:
                continue
            host = objects.host_config_if_there(engine, container["Id"])
            if host is None:
                continue  # its lab has been taken away meanwhile
            who = f"{container['Labels'].get(LABEL_PROJECT, '?')} {container['Names'][0].lstrip('/')}"
            shares.append(Share(who, host["NanoCpus"] / 1e9, int(host["Memory"])))
    return tuple(shares)


def admit(asked: tuple[Share, ...], held: tuple[Share, ...], cpus: float, memory: int) -> None:
    """OvercommitError with a table of who holds what, if `asked` and `held` exceed `cpus` or `memory` (bytes)."""
    every = [*held, *asked]
    cpus_needed, memory_needed = sum(each.cpus for each in every), sum(each.memory for each in every)
    problems = []
    if cpus_needed > cpus + 1e-9:
        problems.append(f"{cpus_needed:g} CPUs of {cpus:g}")
    if memory_needed > memory:
        problems.append(f"{console.size(memory_needed)} of memory of {console.size(memory)}")
    if problems:
        rows = [f"{each.who:<40} {each.cpus:>6g} CPUs {console.size(each.memory):>10}" for each in every]
        raise OvercommitError(
            f"the limits do not fit into this host's share for labs: {' and '.join(problems)}",
            hint="lower [services.*.limits], end another lab, or raise [resources] host_share (LYRA_HOST_SHARE)",
            details=tuple(rows),
        )
