"""The containers of a Compose project, as a node started them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.monitoring import read_log_lines
from lyra_tasks.engine.objects.containers import read_container_state
from lyra_tasks.ports import ContainerPort
from lyra_tasks.records.service_logs import LogReader

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_COMPOSE_PROJECT_LABEL = "com.docker.compose.project"
_COMPOSE_SERVICE_LABEL = "com.docker.compose.service"


@dataclass(frozen=True)
class DeployedService:
    """A container of a Compose project; `ports` maps its ports to ports of the engine's host."""

    name: str
    id: str
    engine: Engine
    ports: Mapping[ContainerPort, int]

    def open_log(self) -> LogReader:
        """Return a reader of the container's output, which begins anew at each call."""
        return lambda: (text for _, text in read_log_lines(self.engine, self.id))


@dataclass(frozen=True)
class VolumeMount:
    """Where a container has a volume."""

    container: str
    path: str


def list_compose_services(engine: Engine, project: str) -> dict[str, DeployedService]:
    """Return the containers of a Compose project by service, including exited ones."""
    services = {}
    for container in _list_containers(engine, project):
        name, container_id = container["Labels"][_COMPOSE_SERVICE_LABEL], container["Id"]
        ports = read_container_state(engine, container_id).ports
        services[name] = DeployedService(name, container_id, engine, ports)
    return services


def list_compose_volumes(engine: Engine, project: str) -> dict[str, VolumeMount]:
    """Return the volumes of a Compose project that one of its containers may write to, by name."""
    return {
        mount["Name"]: VolumeMount(container["Id"], mount["Destination"])
        for container in _list_containers(engine, project)
        for mount in container["Mounts"]
        if mount["Type"] == "volume" and mount["RW"] and mount["Name"].startswith(f"{project}_")
    }


def _list_containers(engine: Engine, project: str) -> list[dict[str, Any]]:
    with translate_errors("listing containers"):
        return list(engine.api.containers(all=True, filters={"label": f"{_COMPOSE_PROJECT_LABEL}={project}"}))
