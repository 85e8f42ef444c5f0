"""What a bundle is about: the promoted services, each with what its image says and what the configuration adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config import deployment
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.ports import AnyPort, number
from lyra_tasks.config.services import RunningShape, running_shape


@dataclass(frozen=True)
class PromotedService:
    """One service that travels: its table, its image's configuration, and the reference it will run from.

    `places` are by port name where it is published unless Proxima says otherwise: on the loopback under its own number;
    nowhere if another service is there.
    """

    name: str
    service: Service
    reference: str
    image_config: Mapping[str, Any]
    places: Mapping[str, str]

    @property
    def shape(self) -> RunningShape:
        """The service merged with its image."""
        return running_shape(self.service, self.image_config)

    def publish_variable(self, port: str) -> str:
        """The variable that says where a port is published on Proxima."""
        return deployment.publish_variable(self.name, port)

    def secret_variable(self, secret: str) -> str:
        """The variable that names the file holding a secret on Proxima."""
        return deployment.secret_variable(self.name, secret)


def promoted_services(
    config: Configuration, references: Mapping[str, str], image_configs: Mapping[str, Mapping[str, Any]]
) -> tuple[PromotedService, ...]:
    """The services that travel, by name; `references` are by image, `image_configs` by service name."""
    owners: dict[AnyPort, str] = {}
    promoted = {name: service for name, service in config.services.items() if service.promoted}
    return tuple(
        PromotedService(
            name,
            service,
            references[str(service.image)],
            image_configs[name],
            {
                key: f"127.0.0.1:{number(port)}" if owners.setdefault(port, name) == name else ""
                for key, port in service.ports.items()
            },
        )
        for name, service in promoted.items()
    )
