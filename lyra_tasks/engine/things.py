"""What an engine holds: every container, network, volume and image reference, as one list."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.faults import engine_faults

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

CONTAINER, NETWORK, VOLUME, IMAGE = "container", "network", "volume", "image"
KINDS = (CONTAINER, NETWORK, VOLUME, IMAGE)

LABEL_NONCE = "dev.lyra.nonce"
LABEL_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Thing:
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


@engine_faults("looking at what it holds")
def everything(engine: Engine) -> tuple[Thing, ...]:
    """All that the engine holds, whoever made it; the networks that every engine has are left out."""
    api = engine.api
    with ThreadPoolExecutor(1) as aside:
        images = aside.submit(_images, engine)  # an engine takes longer for them than for all the rest
        volumes = api.volumes()["Volumes"] or []
        networks = [each for each in api.networks() if each["Name"] not in {"bridge", "host", "none"}]
        containers = api.containers(all=True)
    return (
        *(_container(each) for each in containers),
        *(Thing(NETWORK, each["Name"], each["Id"], _label(each, LABEL_NONCE)) for each in networks),
        *(Thing(VOLUME, each["Name"], each["Name"], _label(each, LABEL_NONCE)) for each in volumes),
        *images.result(),
    )


@engine_faults("looking for what is ours")
def labelled(engine: Engine) -> tuple[Thing, ...]:
    """The containers, networks and volumes that carry a nonce; the engine leaves out all others."""
    api, only = engine.api, {"label": LABEL_NONCE}
    volumes = api.volumes(filters=only)["Volumes"] or []
    return (
        *(_container(each) for each in api.containers(all=True, filters=only)),
        *(Thing(NETWORK, each["Name"], each["Id"], _label(each, LABEL_NONCE)) for each in api.networks(filters=only)),
        *(Thing(VOLUME, each["Name"], each["Name"], _label(each, LABEL_NONCE)) for each in volumes),
    )


def _container(item: dict[str, Any]) -> Thing:
    networks = ((item.get("NetworkSettings") or {}).get("Networks") or {}).keys()
    volumes = [each["Name"] for each in item.get("Mounts") or [] if each.get("Type") == "volume"]
    uses = {(NETWORK, name) for name in networks} | {(VOLUME, name) for name in volumes} | {(IMAGE, item["ImageID"])}
    # a container that is being made, or removed, may have no name for a moment
    name = (item.get("Names") or [item["Id"]])[0].lstrip("/")
    nonce, state = _label(item, LABEL_NONCE), str(item.get("State", ""))
    return Thing(CONTAINER, name, item["Id"], nonce, uses=frozenset(uses), state=state)


def _images(engine: Engine) -> list[Thing]:
    found = []
    for image in engine.api.images(all=False):
        title = _label(image, LABEL_TITLE)
        references = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        found += [Thing(IMAGE, name, image["Id"], title=title) for name in references or [image["Id"]]]
    return found


def _label(item: dict[str, Any], key: str) -> str:
    return str((item.get("Labels") or {}).get(key, ""))
