"""Networks, volumes and containers: made with ownership labels, looked at, spoken to."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.ports import AnyPort
from lyra_tasks.config.ports import read as read_port
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.hijack import exit_code, output_of
from lyra_tasks.engine.ownership import CONTAINER, NETWORK, VOLUME, Owner
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_CHUNK = 2 << 20
_AT_ONCE = 8


@dataclass(frozen=True)
class PlacedFile:
    """A file to put into a container: path below the target folder, content, owner and mode."""

    name: str
    content: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True)
class ContainerState:
    """A container as the engine sees it; `health` is empty where there is no health check.

    `started_at` is the engine's own time stamp: another one means that it was started again.
    """

    running: bool
    exit_code: int
    oom_killed: bool
    health: str
    error: str
    ports: Mapping[AnyPort, int]
    health_log: str
    started_at: str


def make_networks(engine: Engine, owner: Owner, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Create bridge networks by name; the values are the engine's own fields (`Internal`, `Options`)."""
    labels = owner.intend(NETWORK, networks)
    ids = {}
    for name, fields in networks.items():
        with engine_faults(f"creating the network {name}"):
            made = engine.api.create_network(
                name,
                driver="bridge",
                check_duplicate=True,
                internal=bool(fields.get("Internal", False)),
                options=dict(fields.get("Options", {})),
                labels=labels[name],
            )
        ids[name] = str(made["Id"])
    owner.made(NETWORK, ids)


def make_volumes(engine: Engine, owner: Owner, volumes: Mapping[str, Mapping[str, str]]) -> None:
    """Create local volumes by name; the values are the driver's options (none: an ordinary folder)."""
    labels = owner.intend(VOLUME, volumes)
    for name, options in volumes.items():
        with engine_faults(f"creating the volume {name}"):
            engine.api.create_volume(name, driver="local", driver_opts=dict(options), labels=labels[name])
    owner.made(VOLUME, {name: name for name in volumes})


def make_containers(
    engine: Engine, owner: Owner, payloads: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[str, list[str]]]:
    """Create containers from the engine's own create payload, by name; returns id and the engine's warnings."""
    labels = owner.intend(CONTAINER, payloads)

    def make(name: str) -> tuple[str, list[str]]:
        payload = payloads[name]
        config = {**payload, "Labels": {**payload.get("Labels", {}), **labels[name]}}
        with engine_faults(f"creating the container {name}"):
            answer = engine.api.create_container_from_config(config, name)
        return str(answer["Id"]), list(answer.get("Warnings") or [])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        made = dict(zip(payloads, pool.map(make, payloads), strict=True))
    owner.made(CONTAINER, {name: identity for name, (identity, _) in made.items()})
    return made


def connect_network(engine: Engine, network: str, container: str, aliases: Sequence[str]) -> None:
    """Join `container` to another network, known there by `aliases`."""
    with engine_faults(f"joining {network}"):
        engine.api.connect_container_to_network(container, network, aliases=list(aliases))


def start(engine: Engine, container: str, name: str) -> None:
    """Start a created container."""
    with engine_faults(f"starting {name}"):
        engine.api.start(container)


def state(engine: Engine, container: str) -> ContainerState:
    """The container's state now; `ports` maps container ports to those published on the engine's host."""
    with engine_faults("looking at a container"):
        seen = engine.api.inspect_container(container)
    now = seen["State"]
    health = now.get("Health") or {}
    log = [str(each.get("Output", "")).strip() for each in health.get("Log") or []]
    ports = {
        read_port(port): int(bindings[0]["HostPort"])
        for port, bindings in (seen["NetworkSettings"]["Ports"] or {}).items()
        if bindings
    }
    return ContainerState(
        running=bool(now["Running"]),
        exit_code=int(now["ExitCode"]),
        oom_killed=bool(now["OOMKilled"]),
        health=str(health.get("Status", "")),
        error=str(now.get("Error", "")),
        ports=ports,
        health_log=log[-1] if log else "",
        started_at=str(now["StartedAt"]),
    )


def host_config(engine: Engine, container: str) -> dict[str, Any]:
    """The limits and options that the engine took for the container."""
    with engine_faults("reading back limits"):
        found: dict[str, Any] = engine.api.inspect_container(container)["HostConfig"]
    return found


def host_config_if_there(engine: Engine, container: str) -> dict[str, Any] | None:
    """The same of a container that somebody else may be removing; None once it is gone."""
    from docker.errors import NotFound

    with engine_faults("looking at a container"):
        try:
            found: dict[str, Any] = engine.api.inspect_container(container)["HostConfig"]
        except NotFound:
            return None
    return found


def user_of(engine: Engine, container: str) -> str:
    """The user that a container runs as, as it was named: `USER[:GROUP]`, or nothing for root."""
    with engine_faults("looking at a container"):
        return str(engine.api.inspect_container(container)["Config"].get("User") or "")


def inspect_image(engine: Engine, image: str) -> dict[str, Any] | None:
    """What the engine says of an image (`Id`, `Config`, `RootFS`, `Size`, …), or None if it does not hold it."""
    from docker.errors import ImageNotFound

    with engine_faults(f"looking at the image {image}"):
        try:
            found: dict[str, Any] = engine.api.inspect_image(image)
        except ImageNotFound:
            return None
    return found


def load(engine: Engine, archive: Path) -> None:
    """Load what is in an archive that `docker load` takes."""
    with engine_faults(f"loading {archive.name}"), archive.open("rb") as stream:
        for line in engine.streams.load_image(stream):
            if error := line.get("error"):
                raise PreconditionError(f"the engine did not load {archive.name}: {error}")


def wait_for_end(engine: Engine, container: str, seconds: float) -> None:
    """Wait until the engine knows that a container has ended, or for so long."""
    until = time.monotonic() + seconds
    while state(engine, container).running and time.monotonic() < until:
        time.sleep(0.02)


def kill(engine: Engine, containers: Iterable[str]) -> None:
    """End containers at once; those that have ended already are fine."""
    from docker.errors import APIError

    for container in containers:
        with engine_faults("ending containers"), suppress(APIError):
            engine.api.kill(container)


def put_files(engine: Engine, container: str, folder: str, files: Iterable[PlacedFile]) -> None:
    """Write files below `folder` of a container, in one stream."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size, entry.uid, entry.gid, entry.mode = len(file.content), file.uid, file.gid, file.mode
            archive.addfile(entry, io.BytesIO(file.content))
    with engine_faults("filling a volume"):
        engine.api.put_archive(container, folder, buffer.getvalue())


def execute(engine: Engine, container: str, command: Sequence[str]) -> tuple[int, str]:
    """Run `command` in a container; returns its exit code and its output, both streams together."""
    with engine_faults("running a command in a container"):
        made = engine.api.exec_create(container, list(command), stdout=True, stderr=True)
        output = output_of(engine, made["Id"])
        code = exit_code(engine, made["Id"])
    return code, output.decode(errors="replace")
