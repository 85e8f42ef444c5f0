"""List the containers, networks, volumes and image references of an engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

CONTAINER, NETWORK, VOLUME, IMAGE = "container", "network", "volume", "image"
KINDS = (CONTAINER, NETWORK, VOLUME, IMAGE)

_PREDEFINED_NETWORKS = {"bridge", "host", "none"}
LABEL_NONCE = "dev.lyra.nonce"
LABEL_PROJECT = "dev.lyra.project"
LABEL_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class EngineObject:
    """An object in the engine; an image counts once per reference, or by its id if it has none.

    `uses` are the networks, volumes and images that a container uses, as (kind, name), for images (kind, id).
    `state` is a container's state (`running`, `exited`, …), `project` the checkout that the label names. `digests` name
    an image without a tag in its registries.
    """

    kind: str
    name: str
    id: str
    nonce: str = ""
    title: str = ""
    uses: frozenset[tuple[str, str]] = field(default=frozenset())
    state: str = ""
    project: str = ""
    digests: frozenset[str] = frozenset()


@translate_errors("listing the engine's objects")
def list_objects(engine: Engine) -> tuple[EngineObject, ...]:
    """Return all objects of the engine except its predefined networks."""
    with ThreadPoolExecutor(1) as pool:
        images = pool.submit(_image_objects, engine)  # slower than everything else together
        others = _list_other_objects(engine, {})
    return (*others, *images.result())


@translate_errors("listing images")
def list_images(engine: Engine, filters: dict[str, Any]) -> tuple[EngineObject, ...]:
    """Return the images that the engine's `filters` select; it computes the size of each image that it lists."""
    return tuple(_image_objects(engine, filters))


@translate_errors("listing containers")
def list_used_image_ids(engine: Engine) -> frozenset[str]:
    """Return the ids of the images that containers use, stopped ones and those of others too."""
    return frozenset(str(container["ImageID"]) for container in engine.api.containers(all=True))


@translate_errors("listing labelled objects")
def list_labelled_objects(engine: Engine) -> tuple[EngineObject, ...]:
    """Return the containers, networks and volumes with a nonce label."""
    return _list_other_objects(engine, {"label": LABEL_NONCE})


def _list_other_objects(engine: Engine, filters: dict[str, str]) -> tuple[EngineObject, ...]:
    api = engine.api
    volumes = api.volumes(filters=filters)["Volumes"] or []
    networks = [network for network in api.networks(filters=filters) if network["Name"] not in _PREDEFINED_NETWORKS]
    containers = api.containers(all=True, filters=filters)
    return (*map(_container_object, containers), *map(_network_object, networks), *map(_volume_object, volumes))


def _container_object(container: dict[str, Any]) -> EngineObject:
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    uses = {(IMAGE, container["ImageID"])} | {(NETWORK, name) for name in networks}
    uses |= {(VOLUME, mount["Name"]) for mount in container.get("Mounts") or [] if mount.get("Type") == "volume"}
    # a container has no name for a moment while it is created or removed
    name = (container.get("Names") or [container["Id"]])[0].lstrip("/")
    nonce, state = _label_value(container, LABEL_NONCE), str(container.get("State", ""))
    project = _label_value(container, LABEL_PROJECT)
    return EngineObject(CONTAINER, name, container["Id"], nonce, uses=frozenset(uses), state=state, project=project)


def _network_object(network: dict[str, Any]) -> EngineObject:
    nonce, project = _label_value(network, LABEL_NONCE), _label_value(network, LABEL_PROJECT)
    return EngineObject(NETWORK, network["Name"], network["Id"], nonce, project=project)


def _volume_object(volume: dict[str, Any]) -> EngineObject:
    nonce, project = _label_value(volume, LABEL_NONCE), _label_value(volume, LABEL_PROJECT)
    return EngineObject(VOLUME, volume["Name"], volume["Name"], nonce, project=project)


def _image_objects(engine: Engine, filters: dict[str, Any] | None = None) -> list[EngineObject]:
    objects = []
    for image in engine.api.images(all=False, filters=filters):
        title = _label_value(image, LABEL_TITLE)
        references = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        objects += [EngineObject(IMAGE, name, image["Id"], title=title) for name in references]
        if not references:
            digests = frozenset(name for name in image.get("RepoDigests") or [] if name != "<none>@<none>")
            objects.append(EngineObject(IMAGE, image["Id"], image["Id"], title=title, digests=digests))
    return objects


def _label_value(item: dict[str, Any], key: str) -> str:
    return str((item.get("Labels") or {}).get(key, ""))
