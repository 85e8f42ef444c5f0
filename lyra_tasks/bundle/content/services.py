"""What a bundle is about: the promoted services, each with what its image says and what the configuration adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config import deployment
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.services import EffectiveService, effective_service
from lyra_tasks.ports import ContainerPort, port_number


@dataclass(frozen=True)
class PromotedService:
    """One service that travels: its table, its image's configuration, and the reference it will run from.

    `places` are by port name where it is published unless Proxima says otherwise: on the loopback under its own number;
    nowhere if another service is there.
    """

    name: str
    config: Service
    reference: str
    image_config: Mapping[str, Any]
    publish_addresses: Mapping[str, str]

    @property
    def effective(self) -> EffectiveService:
        """The service merged with its image."""
        return effective_service(self.config, self.image_config)

    def publish_variable(self, port: str) -> str:
        """The variable that says where a port is published on Proxima."""
        return deployment.publish_variable(self.name, port)

    def secret_variable(self, secret: str) -> str:
        """The variable that names the file holding a secret on Proxima."""
        return deployment.secret_variable(self.name, secret)


def select_promoted_services(
    config: Configuration, references: Mapping[str, str], image_configs: Mapping[str, Mapping[str, Any]]
) -> tuple[PromotedService, ...]:
    """The services that travel, by name; `references` are by image, `image_configs` by service name."""
    owners: dict[ContainerPort, str] = {}
    services = {name: service for name, service in config.services.items() if service.is_promoted}
    return tuple(
        PromotedService(
            name,
            service,
            references[str(service.image)],
            image_configs[name],
            {
                key: f"127.0.0.1:{port_number(port)}" if owners.setdefault(port, name) == name else ""
                for key, port in service.ports.items()
            },
        )
        for name, service in services.items()
    )
