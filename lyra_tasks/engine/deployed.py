"""Services that something else than a lab has started: the containers of a compose project, as an engine knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.config.ports import AnyPort
from lyra_tasks.engine import objects
from lyra_tasks.engine.faults import engine_faults

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True)
class DeployedService:
    """A container by its id; `ports` maps its ports to those published on the engine's host."""

    name: str
    id: str
    engine: Engine
    ports: Mapping[AnyPort, int]

    def log(self) -> str:
        """Everything that the container has printed."""
        with engine_faults("reading a container's log"):
            printed: bytes = self.engine.api.logs(self.id)
        return printed.decode(errors="replace")


def deployed(engine: Engine, project: str) -> dict[str, DeployedService]:
    """The containers of a compose project by their service, ended ones too."""
    with engine_faults("looking for containers"):
        found = engine.api.containers(all=True, filters={"label": f"{_PROJECT}={project}"})
    return {
        each["Labels"][_SERVICE]: DeployedService(
            each["Labels"][_SERVICE], each["Id"], engine, objects.state(engine, each["Id"]).ports
        )
        for each in found
    }
