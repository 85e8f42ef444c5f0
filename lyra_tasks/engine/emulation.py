"""Which platforms containers of an engine can run: found out by running a program of a few bytes for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.platforms import hyphened, runs_on
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.holder import holder_image
from lyra_tasks.engine.objects import make_containers
from lyra_tasks.engine.ownership import CONTAINER, Owned, Owner
from lyra_tasks.engine.probes import probe
from lyra_tasks.engine.remove import remove

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_PATIENCE = 30  # seconds; a program of a few instructions needs some milliseconds, emulated or not
_FOREIGN = "exec format error"


def runnable(engine: Engine, owner: Owner, platforms: Iterable[str]) -> tuple[str, ...]:
    """Those of `platforms` that the engine's containers run, its own first; others need emulation or a kind kernel."""
    own = engine.facts.platform
    wanted = list(dict.fromkeys(platforms))
    foreign = [each for each in wanted if not runs_on(each, own) and each.startswith("linux/")]
    probes = {each: path for each in foreign if (path := probe(each.split("/")[1]))}
    found = _tried(engine, owner, probes) if probes else set()
    return (*(each for each in wanted if runs_on(each, own)), *(each for each in foreign if each in found))


def _tried(engine: Engine, owner: Owner, probes: dict[str, str]) -> set[str]:
    image = holder_image(engine, owner)
    names = {each: f"lyra-{owner.run}-runs-{hyphened(each)}" for each in probes}
    made = make_containers(engine, owner, {names[each]: _payload(image, path) for each, path in probes.items()})
    try:
        return {each for each in probes if _ends_well(engine, made[names[each]][0])}
    finally:
        gone, _ = remove(engine, [Owned(CONTAINER, name, made[name][0], owner.run) for name in names.values()])
        owner.removed(engine, gone)


def _payload(image: str, path: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [path],
        "HostConfig": {
            "NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True,
            "Memory": 32 * 1024**2, "MemorySwap": 32 * 1024**2, "PidsLimit": 16,
        },
    }  # fmt: skip


def _ends_well(engine: Engine, container: str) -> bool:
    from docker.errors import APIError

    with engine_faults("trying what it can run"):
        try:
            engine.api.start(container)
        except APIError as error:
            if _FOREIGN in str(error.explanation):
                return False
            raise
        return int(engine.api.wait(container, timeout=_PATIENCE)["StatusCode"]) == 0
