"""The promoted services, each with its configuration and that of its image."""

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
    """A promoted service; `reference` is the image that it runs.

    `publish_addresses` are the default addresses by port name: the same port on the loopback interface, or empty if
    another service has it.
    """

    name: str
    config: Service
    reference: str
    image_config: Mapping[str, Any]
    publish_addresses: Mapping[str, str]

    @property
    def effective(self) -> EffectiveService:
        """Return the service merged with its image."""
        return effective_service(self.config, self.image_config)

    def publish_variable(self, port: str) -> str:
        """Return the variable that sets the address of a published port."""
        return deployment.publish_variable(self.name, port)

    def secret_variable(self, secret: str) -> str:
        """Return the variable that names the file of a secret."""
        return deployment.secret_variable(self.name, secret)


def select_promoted_services(
    config: Configuration, references: Mapping[str, str], image_configs: Mapping[str, Mapping[str, Any]]
) -> tuple[PromotedService, ...]:
    """Return the promoted services; `references` are by image, `image_configs` by service."""
    port_owners: dict[ContainerPort, str] = {}
    services = {name: service for name, service in config.services.items() if service.is_promoted}
    return tuple(
        PromotedService(
            name,
            service,
            references[str(service.image)],
            image_configs[name],
            {
                key: f"127.0.0.1:{port_number(port)}" if port_owners.setdefault(port, name) == name else ""
                for key, port in service.ports.items()
            },
        )
        for name, service in services.items()
    )
