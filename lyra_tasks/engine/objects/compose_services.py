"""The containers of a Compose project, as a node started them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def list_compose_services(engine: Engine, project: str) -> dict[str, DeployedService]:
    """Return the containers of a Compose project by service, including exited ones."""
    with translate_errors("listing containers"):
        containers = engine.api.containers(all=True, filters={"label": f"{_COMPOSE_PROJECT_LABEL}={project}"})
    services = {}
    for container in containers:
        name, container_id = container["Labels"][_COMPOSE_SERVICE_LABEL], container["Id"]
        ports = read_container_state(engine, container_id).ports
        services[name] = DeployedService(name, container_id, engine, ports)
    return services
