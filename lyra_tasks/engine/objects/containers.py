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

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.exec_stream import read_exec_output, wait_for_exit_code
from lyra_tasks.engine.objects.ownership import CONTAINER, NETWORK, VOLUME, Owner
from lyra_tasks.errors import PreconditionError
from lyra_tasks.ports import ContainerPort
from lyra_tasks.ports import parse_port as parse_port

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_CHUNK = 2 << 20
_MAX_PARALLEL_CREATES = 8


@dataclass(frozen=True)
class ContainerFile:
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
    ports: Mapping[ContainerPort, int]
    health_log: str
    started_at: str


def create_networks(engine: Engine, owner: Owner, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Create bridge networks by name; the values are the engine's own fields (`Internal`, `Options`)."""
    labels = owner.record_intent(NETWORK, networks)
    ids = {}
    for name, fields in networks.items():
        with translate_errors(f"creating the network {name}"):
            network = engine.api.create_network(
                name,
                driver="bridge",
                check_duplicate=True,
                internal=bool(fields.get("Internal", False)),
                options=dict(fields.get("Options", {})),
                labels=labels[name],
            )
        ids[name] = str(network["Id"])
    owner.record_created(NETWORK, ids)


def create_volumes(engine: Engine, owner: Owner, volumes: Mapping[str, Mapping[str, str]]) -> None:
    """Create local volumes by name; the values are the driver's options (none: an ordinary folder)."""
    labels = owner.record_intent(VOLUME, volumes)
    for name, options in volumes.items():
        with translate_errors(f"creating the volume {name}"):
            engine.api.create_volume(name, driver="local", driver_opts=dict(options), labels=labels[name])
    owner.record_created(VOLUME, {name: name for name in volumes})


def create_containers(
    engine: Engine, owner: Owner, payloads: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[str, list[str]]]:
    """Create containers from the engine's own create payload, by name; returns id and the engine's warnings."""
    labels = owner.record_intent(CONTAINER, payloads)

    def make(name: str) -> tuple[str, list[str]]:
        payload = payloads[name]
        config = {**payload, "Labels": {**payload.get("Labels", {}), **labels[name]}}
        with translate_errors(f"creating the container {name}"):
            response = engine.api.create_container_from_config(config, name)
        return str(response["Id"]), list(response.get("Warnings") or [])

    with ThreadPoolExecutor(_MAX_PARALLEL_CREATES) as pool:
        created = dict(zip(payloads, pool.map(make, payloads), strict=True))
    owner.record_created(CONTAINER, {name: container_id for name, (container_id, _) in created.items()})
    return created


def connect_to_network(engine: Engine, network: str, container: str, aliases: Sequence[str]) -> None:
    """Join `container` to another network, known there by `aliases`."""
    with translate_errors(f"joining {network}"):
        engine.api.connect_container_to_network(container, network, aliases=list(aliases))


def start_container(engine: Engine, container: str, name: str) -> None:
    """Start a created container."""
    with translate_errors(f"starting {name}"):
        engine.api.start(container)


def read_container_state(engine: Engine, container: str) -> ContainerState:
    """The container's state now; `ports` maps container ports to those published on the engine's host."""
    with translate_errors("looking at a container"):
        document = engine.api.inspect_container(container)
    status = document["State"]
    health = status.get("Health") or {}
    outputs = [str(entry.get("Output", "")).strip() for entry in health.get("Log") or []]
    ports = {
        parse_port(port): int(bindings[0]["HostPort"])
        for port, bindings in (document["NetworkSettings"]["Ports"] or {}).items()
        if bindings
    }
    return ContainerState(
        running=bool(status["Running"]),
        exit_code=int(status["ExitCode"]),
        oom_killed=bool(status["OOMKilled"]),
        health=str(health.get("Status", "")),
        error=str(status.get("Error", "")),
        ports=ports,
        health_log=outputs[-1] if outputs else "",
        started_at=str(status["StartedAt"]),
    )


def read_host_config(engine: Engine, container: str) -> dict[str, Any]:
    """The limits and options that the engine took for the container."""
    with translate_errors("reading back limits"):
        config: dict[str, Any] = engine.api.inspect_container(container)["HostConfig"]
    return config


def find_host_config(engine: Engine, container: str) -> dict[str, Any] | None:
    """The same of a container that somebody else may be removing; None once it is gone."""
    from docker.errors import NotFound

    with translate_errors("looking at a container"):
        try:
            config: dict[str, Any] = engine.api.inspect_container(container)["HostConfig"]
        except NotFound:
            return None
    return config


def read_container_user(engine: Engine, container: str) -> str:
    """The user that a container runs as, as it was named: `USER[:GROUP]`, or nothing for root."""
    with translate_errors("looking at a container"):
        return str(engine.api.inspect_container(container)["Config"].get("User") or "")


def inspect_image(engine: Engine, image: str) -> dict[str, Any] | None:
    """What the engine says of an image (`Id`, `Config`, `RootFS`, `Size`, …), or None if it does not hold it."""
    from docker.errors import ImageNotFound

    with translate_errors(f"looking at the image {image}"):
        try:
            document: dict[str, Any] = engine.api.inspect_image(image)
        except ImageNotFound:
            return None
    return document


def load_image_archive(engine: Engine, archive: Path) -> None:
    """Load what is in an archive that `docker load` takes."""
    with translate_errors(f"loading {archive.name}"), archive.open("rb") as stream:
        for line in engine.stream_api.load_image(stream):
            if error := line.get("error"):
                raise PreconditionError(f"the engine did not load {archive.name}: {error}")


def wait_for_container_exit(engine: Engine, container: str, timeout: float) -> None:
    """Wait until the engine knows that a container has ended, or for so long."""
    deadline = time.monotonic() + timeout
    while read_container_state(engine, container).running and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_containers(engine: Engine, containers: Iterable[str]) -> None:
    """End containers at once; those that have ended already are fine."""
    from docker.errors import APIError

    for container in containers:
        with translate_errors("ending containers"), suppress(APIError):
            engine.api.kill(container)


def put_files(engine: Engine, container: str, directory: str, files: Iterable[ContainerFile]) -> None:
    """Write files below `folder` of a container, in one stream."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size, entry.uid, entry.gid, entry.mode = len(file.content), file.uid, file.gid, file.mode
            archive.addfile(entry, io.BytesIO(file.content))
    with translate_errors("filling a volume"):
        engine.api.put_archive(container, directory, buffer.getvalue())


def exec_command(engine: Engine, container: str, command: Sequence[str]) -> tuple[int, str]:
    """Run `command` in a container; returns its exit code and its output, both streams together."""
    with translate_errors("running a command in a container"):
        exec_document = engine.api.exec_create(container, list(command), stdout=True, stderr=True)
        output = read_exec_output(engine, exec_document["Id"])
        code = wait_for_exit_code(engine, exec_document["Id"])
    return code, output.decode(errors="replace")


_COMPOSE_PROJECT_LABEL = "com.docker.compose.project"
_COMPOSE_SERVICE_LABEL = "com.docker.compose.service"


@dataclass(frozen=True)
class DeployedService:
    """A container by its id; `ports` maps its ports to those published on the engine's host."""

    name: str
    id: str
    engine: Engine
    ports: Mapping[ContainerPort, int]

    def log(self) -> str:
        """Everything that the container has printed."""
        with translate_errors("reading a container's log"):
            output: bytes = self.engine.api.logs(self.id)
        return output.decode(errors="replace")


def list_compose_services(engine: Engine, project: str) -> dict[str, DeployedService]:
    """The containers of a compose project by their service, ended ones too."""
    with translate_errors("looking for containers"):
        containers = engine.api.containers(all=True, filters={"label": f"{_COMPOSE_PROJECT_LABEL}={project}"})
    return {
        container["Labels"][_COMPOSE_SERVICE_LABEL]: DeployedService(
            container["Labels"][_COMPOSE_SERVICE_LABEL],
            container["Id"],
            engine,
            read_container_state(engine, container["Id"]).ports,
        )
        for container in containers
    }
