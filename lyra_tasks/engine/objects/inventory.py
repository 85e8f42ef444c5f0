"""What an engine holds: every container, network, volume and image reference, as one list."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

CONTAINER, NETWORK, VOLUME, IMAGE = "container", "network", "volume", "image"
KINDS = (CONTAINER, NETWORK, VOLUME, IMAGE)

LABEL_NONCE = "dev.lyra.nonce"
LABEL_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class EngineObject:
    """An object in the engine. An image is one per reference; one without any goes by its id.

    `uses` are the networks, volumes and image ids that a container holds on to, as (kind, name or id); `state` is the
    engine's word for what a container does (`running`, `exited`, …).
    """

    kind: str
    name: str
    id: str
    nonce: str = ""
    title: str = ""
    uses: frozenset[tuple[str, str]] = field(default=frozenset())
    state: str = ""


@translate_errors("looking at what it holds")
def list_objects(engine: Engine) -> tuple[EngineObject, ...]:
    """All that the engine holds, whoever made it; the networks that every engine has are left out."""
    api = engine.api
    with ThreadPoolExecutor(1) as pool:
        images = pool.submit(_image_objects, engine)  # an engine takes longer for them than for all the rest
        volumes = api.volumes()["Volumes"] or []
        networks = [network for network in api.networks() if network["Name"] not in {"bridge", "host", "none"}]
        containers = api.containers(all=True)
    return (
        *(_container_object(container) for container in containers),
        *(
            EngineObject(NETWORK, network["Name"], network["Id"], _label_value(network, LABEL_NONCE))
            for network in networks
        ),
        *(
            EngineObject(VOLUME, volume["Name"], volume["Name"], _label_value(volume, LABEL_NONCE))
            for volume in volumes
        ),
        *images.result(),
    )


@translate_errors("looking for what is ours")
def list_labelled_objects(engine: Engine) -> tuple[EngineObject, ...]:
    """The containers, networks and volumes that carry a nonce; the engine leaves out all others."""
    api, filters = engine.api, {"label": LABEL_NONCE}
    volumes = api.volumes(filters=filters)["Volumes"] or []
    return (
        *(_container_object(container) for container in api.containers(all=True, filters=filters)),
        *(
            EngineObject(NETWORK, network["Name"], network["Id"], _label_value(network, LABEL_NONCE))
            for network in api.networks(filters=filters)
        ),
        *(
            EngineObject(VOLUME, volume["Name"], volume["Name"], _label_value(volume, LABEL_NONCE))
            for volume in volumes
        ),
    )


def _container_object(item: dict[str, Any]) -> EngineObject:
    networks = ((item.get("NetworkSettings") or {}).get("Networks") or {}).keys()
    volumes = [mount["Name"] for mount in item.get("Mounts") or [] if mount.get("Type") == "volume"]
    uses = {(NETWORK, name) for name in networks} | {(VOLUME, name) for name in volumes} | {(IMAGE, item["ImageID"])}
    # a container that is being made, or removed, may have no name for a moment
    name = (item.get("Names") or [item["Id"]])[0].lstrip("/")
    nonce, state = _label_value(item, LABEL_NONCE), str(item.get("State", ""))
    return EngineObject(CONTAINER, name, item["Id"], nonce, uses=frozenset(uses), state=state)


def _image_objects(engine: Engine) -> list[EngineObject]:
    objects = []
    for image in engine.api.images(all=False):
        title = _label_value(image, LABEL_TITLE)
        references = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        objects += [
            EngineObject(IMAGE, reference, image["Id"], title=title) for reference in references or [image["Id"]]
        ]
    return objects


def _label_value(item: dict[str, Any], key: str) -> str:
    return str((item.get("Labels") or {}).get(key, ""))
