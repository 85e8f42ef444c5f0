"""Find out which platforms an engine can run, by running a tiny program for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.platforms import is_native_platform, platform_slug
from lyra_tasks.engine.client.errors import EXEC_FORMAT_ERROR, translate_errors
from lyra_tasks.engine.objects.containers import create_containers
from lyra_tasks.engine.objects.holder import ensure_holder_image, probe_path
from lyra_tasks.engine.objects.inventory import CONTAINER
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner
from lyra_tasks.engine.objects.removal import remove_objects

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_PROBE_TIMEOUT_S = 30


def list_runnable_platforms(engine: Engine, owner: Owner, platforms: Iterable[str]) -> tuple[str, ...]:
    """Return the platforms that the engine's containers can run, native ones first."""
    requested = list(dict.fromkeys(platforms))
    native = [platform for platform in requested if is_native_platform(platform, engine.facts.platform)]
    foreign = [platform for platform in requested if platform not in native and platform.startswith("linux/")]
    probes = {platform: path for platform in foreign if (path := probe_path(platform.split("/")[1]))}
    runnable = _probe_platforms(engine, owner, probes) if probes else set()
    return (*native, *(platform for platform in foreign if platform in runnable))


def _probe_platforms(engine: Engine, owner: Owner, probes: dict[str, str]) -> set[str]:
    image = ensure_holder_image(engine, owner)
    names = {platform: f"lyra-{owner.run}-runs-{platform_slug(platform)}" for platform in probes}
    payloads = {names[platform]: _probe_payload(image, path) for platform, path in probes.items()}
    ids = {name: container_id for name, (container_id, _) in create_containers(engine, owner, payloads).items()}
    try:
        return {platform for platform in probes if _runs_successfully(engine, ids[names[platform]])}
    finally:
        owned_objects = [OwnedObject(CONTAINER, name, container_id, owner.run) for name, container_id in ids.items()]
        removed, _ = remove_objects(engine, owned_objects)
        owner.record_removed(engine, removed)


def _probe_payload(image: str, path: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [path],
        "HostConfig": {
            "NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True,
            "Memory": 32 * 1024**2, "MemorySwap": 32 * 1024**2, "PidsLimit": 16,
        },
    }  # fmt: skip


def _runs_successfully(engine: Engine, container: str) -> bool:
    from docker.errors import APIError

    with translate_errors("running a probe container"):
        try:
            engine.api.start(container)
        except APIError as error:
            if EXEC_FORMAT_ERROR in str(error.explanation):
                return False
            raise
        return int(engine.api.wait(container, timeout=_PROBE_TIMEOUT_S)["StatusCode"]) == 0
