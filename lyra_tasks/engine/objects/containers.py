"""Create networks, volumes and containers with ownership labels; inspect and use containers and images."""

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
from lyra_tasks.engine.objects.inventory import CONTAINER, NETWORK, VOLUME
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.errors import PreconditionError
from lyra_tasks.ports import ContainerPort, parse_port

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_PARALLEL_CREATES = 8
_RESTART_POLL_INTERVAL_S = 0.2
_NANO = 1_000_000_000
# What the engine takes for values that a HEALTHCHECK leaves out (https://docs.docker.com/reference/dockerfile/#healthcheck)
_DEFAULT_PROBE_S = 30 * _NANO
_DEFAULT_PROBE_RETRIES = 3


@dataclass(frozen=True)
class ContainerFile:
    """A file to copy into a container; `name` is its path below the target directory."""

    name: str
    content: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True)
class ContainerState:
    """The state of a container; `health` is empty without a health check, `ports` maps to ports of the engine's host.

    A different `started_at` means that the container was restarted. Times are in RFC 3339.
    """

    running: bool
    exit_code: int
    oom_killed: bool
    health: str
    error: str
    ports: Mapping[ContainerPort, int]
    health_log: str
    started_at: str
    finished_at: str = ""


@dataclass(frozen=True)
class HealthProbe:
    """The health check of a container as the engine runs it; times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start_period: float

    @property
    def patience(self) -> float:
        """The time until the engine has judged a container that is never healthy."""
        return self.start_period + (self.retries + 1) * (self.interval + self.timeout)


def create_networks(engine: Engine, owner: Owner, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Create bridge networks by name; the values are fields of the API (`Internal`, `Options`)."""
    labels = owner.record_intent(engine, NETWORK, networks)
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
    owner.record_created(engine, NETWORK, ids)


def create_volumes(engine: Engine, owner: Owner, volumes: Mapping[str, Mapping[str, str]]) -> None:
    """Create local volumes by name; the values are driver options."""
    labels = owner.record_intent(engine, VOLUME, volumes)

    def create(name: str) -> None:
        with translate_errors(f"creating the volume {name}"):
            engine.api.create_volume(name, driver="local", driver_opts=dict(volumes[name]), labels=labels[name])

    with ThreadPoolExecutor(_MAX_PARALLEL_CREATES) as pool:
        list(pool.map(create, volumes))
    owner.record_created(engine, VOLUME, {name: name for name in volumes})


def create_containers(
    engine: Engine, owner: Owner, payloads: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[str, list[str]]]:
    """Create containers by name from payloads of the API; return their ids and the engine's warnings."""
    labels = owner.record_intent(engine, CONTAINER, payloads)

    def create(name: str) -> tuple[str, list[str]]:
        payload = payloads[name]
        config = {**payload, "Labels": {**payload.get("Labels", {}), **labels[name]}}
        with translate_errors(f"creating the container {name}"):
            response = engine.api.create_container_from_config(config, name)
        return str(response["Id"]), list(response.get("Warnings") or [])

    with ThreadPoolExecutor(_MAX_PARALLEL_CREATES) as pool:
        created = dict(zip(payloads, pool.map(create, payloads), strict=True))
    owner.record_created(engine, CONTAINER, {name: container_id for name, (container_id, _) in created.items()})
    return created


def connect_to_network(engine: Engine, network: str, container: str, aliases: Sequence[str]) -> None:
    """Connect a container to a further network under the given aliases."""
    with translate_errors(f"connecting to the network {network}"):
        engine.api.connect_container_to_network(container, network, aliases=list(aliases))


def start_container(engine: Engine, container: str, name: str) -> None:
    """Start a created container."""
    with translate_errors(f"starting {name}"):
        engine.api.start(container)


def read_container_state(engine: Engine, container: str) -> ContainerState:
    """Return the present state of a container."""
    with translate_errors("inspecting a container"):
        return _parse_state(_inspect_container(engine, container))


def is_running(engine: Engine, container: str) -> bool:
    """Return whether a container runs; one that no longer exists does not."""
    document = _find_container(engine, container)
    return document is not None and bool(document["State"]["Running"])


def _parse_state(document: Mapping[str, Any]) -> ContainerState:
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
        finished_at=str(status["FinishedAt"]),
    )


def read_health_probe(engine: Engine, container: str) -> HealthProbe | None:
    """Return the health check of a container, its own or that of its image; None if there is none."""
    with translate_errors("inspecting a container"):
        return _parse_probe(_inspect_container(engine, container)["Config"])


def _parse_probe(config: Mapping[str, Any]) -> HealthProbe | None:
    check = config.get("Healthcheck") or {}
    kind, *arguments = check.get("Test") or ["NONE"]
    if kind == "NONE" or not arguments:
        return None
    shell = config.get("Shell") or ["/bin/sh", "-c"]
    return HealthProbe(
        command=tuple(arguments) if kind == "CMD" else (*shell, arguments[0]),
        interval=(check.get("Interval") or _DEFAULT_PROBE_S) / _NANO,
        timeout=(check.get("Timeout") or _DEFAULT_PROBE_S) / _NANO,
        retries=check.get("Retries") or _DEFAULT_PROBE_RETRIES,
        start_period=(check.get("StartPeriod") or 0) / _NANO,
    )


def read_host_config(engine: Engine, container: str) -> dict[str, Any]:
    """Return the limits and options of a container as the engine applied them."""
    host_config: dict[str, Any] = _inspect_container(engine, container)["HostConfig"]
    return host_config


def find_host_config(engine: Engine, container: str) -> dict[str, Any] | None:
    """Return the limits and options of a container, or None if it no longer exists."""
    document = _find_container(engine, container)
    return None if document is None else document["HostConfig"]


def read_container_user(engine: Engine, container: str) -> str:
    """Return the configured user of a container, `USER[:GROUP]`, empty for root."""
    return str(_inspect_container(engine, container)["Config"].get("User") or "")


def read_environment_values(engine: Engine, container: str, variables: Sequence[str]) -> list[str]:
    """Return the values of environment variables of a container; nothing if it no longer exists."""
    document = _find_container(engine, container) or {"Config": {}}
    values = dict(variable.split("=", 1) for variable in document["Config"].get("Env") or [])
    return [values[name] for name in variables if name in values]


def _inspect_container(engine: Engine, container: str) -> dict[str, Any]:
    with translate_errors("inspecting a container"):
        document: dict[str, Any] = engine.api.inspect_container(container)
    return document


def _find_container(engine: Engine, container: str) -> dict[str, Any] | None:
    from docker.errors import NotFound

    with translate_errors("inspecting a container"), suppress(NotFound):
        document: dict[str, Any] = engine.api.inspect_container(container)
        return document
    return None


def inspect_image(engine: Engine, image: str) -> dict[str, Any] | None:
    """Return the engine's description of an image (`Id`, `Config`, `RootFS`, `Size`, …), or None if it is missing."""
    from docker.errors import ImageNotFound

    with translate_errors(f"inspecting the image {image}"), suppress(ImageNotFound):
        document: dict[str, Any] = engine.api.inspect_image(image)
        return document
    return None


def load_image_archive(engine: Engine, archive: Path) -> None:
    """Load the images of an archive, like `docker load`."""
    with translate_errors(f"loading {archive.name}"), archive.open("rb") as stream:
        for line in engine.stream_api.load_image(stream):
            if error := line.get("error"):
                raise PreconditionError(f"Cannot load {archive.name}: {error}")


def restart_container(engine: Engine, container: str, name: str, stop_timeout_s: int) -> None:
    """Stop a container, by SIGKILL after a time, and start it again; one that has exited is started."""
    with translate_errors(f"restarting {name}"):
        engine.api.restart(container, timeout=stop_timeout_s)


def kill_containers(engine: Engine, containers: Iterable[str]) -> None:
    """Kill containers; those that have already exited are ignored."""
    from docker.errors import APIError

    def kill(container: str) -> None:
        with translate_errors("killing containers"), suppress(APIError):
            engine.api.kill(container)

    identifiers = list(containers)
    with ThreadPoolExecutor(len(identifiers) or 1) as pool:  # the engine answers once a container has ended
        list(pool.map(kill, identifiers))


def wait_for_exit(engine: Engine, container: str) -> None:
    """Wait until a container has exited or is gone."""
    from docker.errors import NotFound

    with translate_errors("waiting for a container"), suppress(NotFound):
        engine.stream_api.wait(container)


def wait_for_restart(engine: Engine, container: str, timeout_s: float) -> bool:
    """Return whether a container that has exited runs again within this time; one that no longer exists does not."""
    deadline = time.monotonic() + timeout_s
    while (document := _find_container(engine, container)) is not None and time.monotonic() < deadline:
        if document["State"]["Running"]:
            return True
        time.sleep(_RESTART_POLL_INTERVAL_S)
    return False


def put_files(engine: Engine, container: str, directory: str, files: Iterable[ContainerFile]) -> None:
    """Copy files into a directory of a container."""
    with translate_errors("copying files to a container"):
        engine.api.put_archive(container, directory, create_tar(files))


def create_tar(files: Iterable[ContainerFile]) -> bytes:
    """Return a tar archive with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size, entry.uid, entry.gid, entry.mode = len(file.content), file.uid, file.gid, file.mode
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()
