"""`deploy/environment.json` and `deploy/.env.example`: what the promoted services need to run.

Variables that only the image sets are listed, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.deployment import (
    can_be_compose_default,
    config_path,
    is_settable_name,
    publish_variable,
    secret_variable,
)
from lyra_tasks.config.models import Configuration, EnvironmentVariable, Service
from lyra_tasks.config.services import IMAGE_BASELINE_VARIABLES, EffectiveService, effective_service
from lyra_tasks.console import escape
from lyra_tasks.ports import port_number, port_protocol

_WILDCARD_HOSTS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104
_UNQUOTED_VALUE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")


@dataclass(frozen=True)
class PromotedService:
    """A promoted service with the configuration of its image; `reference` is the image that it runs.

    `user_ids` are those of a user with a name. `publish_addresses` are the default addresses by port name, empty where
    another service has the address.
    """

    name: str
    config: Service
    reference: str
    image_config: Mapping[str, Any]
    publish_addresses: Mapping[str, str]
    user_ids: UserIds | None = None

    @property
    def effective(self) -> EffectiveService:
        """Return the service merged with its image."""
        return effective_service(self.config, self.image_config, self.user_ids)


def select_promoted_services(
    config: Configuration,
    references: Mapping[str, str],
    image_configs: Mapping[str, Mapping[str, Any]],
    user_ids: Mapping[str, UserIds | None] | None = None,
) -> tuple[PromotedService, ...]:
    """Return the promoted services; `references` are by image, `image_configs` and `user_ids` by service."""
    services = {name: service for name, service in config.services.items() if service.is_promoted}
    addresses = _assign_addresses(services)
    return tuple(
        PromotedService(
            name,
            service,
            references[config.image_name(name)],
            image_configs[name],
            {key: addresses[name, key] for key in service.ports},
            (user_ids or {}).get(name),
        )
        for name, service in services.items()
    )


def _assign_addresses(services: Mapping[str, Service]) -> dict[tuple[str, str], str]:
    """Return where each port of each service is published by default; those that are configured have precedence."""
    addresses: dict[tuple[str, str], str] = {}
    ports = [(name, key) for name, service in services.items() for key in service.ports]
    taken: list[tuple[str, str, str]] = []
    for name, key in sorted(ports, key=lambda port: port[1] not in services[port[0]].publish):
        address = services[name].default_publish_address(key)
        host, _, number = address.rpartition(":")
        protocol = port_protocol(services[name].ports[key])
        hosts = {taken_host for taken_host, *taken_port in taken if taken_port == [number, protocol]}
        is_free = host not in hosts and _WILDCARD_HOSTS.isdisjoint(hosts) and not (hosts and host in _WILDCARD_HOSTS)
        addresses[name, key] = address if is_free else ""
        taken.append((host, number, protocol))
    return addresses


def build_environment_document(project: str, services: Sequence[PromotedService]) -> dict[str, Any]:
    """Return the content of `deploy/environment.json`, without values of secrets."""
    return {
        "schema": "lyra.environment/1",
        "project": project,
        "services": {service.name: _service(service) for service in services},
    }


def list_variables(service: PromotedService) -> list[dict[str, Any]]:
    """Return the environment variables of a service: configured ones first, then those of the image."""
    variables = service.config.environment
    image_values = dict(str(pair).partition("=")[::2] for pair in service.image_config.get("Env") or [])
    image_variables = {
        name: EnvironmentVariable.model_construct(default=value)
        for name, value in image_values.items()
        if name not in variables and name not in IMAGE_BASELINE_VARIABLES
    }
    return [
        {
            "name": name,
            "type": "string",
            "required": variable.default is None and (variable.required or variable.secret),
            "secret": variable.secret,
            "default": None if variable.secret else variable.default,
            "pattern": variable.pattern or None,
            "description": variable.description,
            "from": "configuration" if name in variables else "image",
        }
        | ({"template": variable.template} if variable.template else {})
        for name, variable in (variables | image_variables).items()
    ]


def render_env_example(services: Sequence[PromotedService]) -> str:
    """Return the content of `deploy/.env.example`: required variables without a value, optional ones commented out.

    A variable of several services is listed once, and required if one of them requires it.
    """
    lines = ["# Written by lyra-tasks. Copy to .env beside compose.yaml and fill in the variables without a value."]
    unlisted_variables: dict[str, dict[str, Any]] = {}
    for variable in (variable for service in services for variable in list_variables(service)):
        existing = unlisted_variables.get(variable["name"])
        if variable["from"] != "image" and (existing is None or (variable["required"] and not existing["required"])):
            unlisted_variables[variable["name"]] = variable
    for service in services:
        lines += ["", f"# {service.name}"]
        for name in service.config.environment:
            if name in unlisted_variables and is_settable_name(name):
                lines += _render_variable(unlisted_variables.pop(name))
        for key, secret in service.config.secrets.items():
            user = service.effective.user or "0"
            lines.append(f"# path of a file that user {escape(user)} can read: {escape(secret.description or key)}")
            lines.append(f"{secret_variable(service.name, key)}=")
        for key, port in service.config.ports.items():
            address = service.publish_addresses[key]
            lines.append(f"# where port {port} ({key}) is published")
            lines.append(f"{'#' if address else ''}{publish_variable(service.name, key)}={address}")
    return "\n".join(lines) + "\n"


def quote_env_value(value: str) -> str:
    """Quote a value for `.env`, as Compose reads it, if necessary."""
    if _UNQUOTED_VALUE.fullmatch(value):
        return value
    if not {"'", "\\"} & set(value):
        return f"'{value}'"
    return '"' + re.sub(r'["$\\]', r"\\\g<0>", value) + '"'


def _render_variable(variable: dict[str, Any]) -> list[str]:
    name, default = variable["name"], variable["default"] or ""
    prefix = "" if variable["required"] or not can_be_compose_default(default) else "#"
    return [
        f"# {escape(variable['description'] or name)}",
        f"{prefix}{name}={'' if variable['required'] else quote_env_value(default)}",
    ]


def _service(service: PromotedService) -> dict[str, Any]:
    config, effective = service.config, service.effective
    return {
        "image": service.reference,
        "user": effective.user,
        "environment": list_variables(service),
        "secrets": [
            {"name": key, "path": secret.path, "description": secret.description,
             "variable": secret_variable(service.name, key)}
            for key, secret in config.secrets.items()
        ],
        "volumes": [
            {"name": key, "path": volume.path, "size": volume.size, "owner": volume.owner_text,
             "description": volume.description}
            | ({"shared": volume.shared} if volume.shared else {})
            | ({"read_only": True} if volume.read_only else {})
            for key, volume in config.volumes.items()
        ],
        "ports": [
            {"name": key, "port": port_number(port), "protocol": port_protocol(port),
             "variable": publish_variable(service.name, key)}
            | ({"address": config.default_publish_address(key)} if key in config.publish else {})
            for key, port in config.ports.items()
        ],
        "configs": [
            {"name": key, "path": file.path, "description": file.description,
             "file": config_path(service.name, key, file)}
            for key, file in config.configs.items()
        ],
        "limits": {
            "cpus": config.limits.cpus, "memory": effective.memory, "pids": config.limits.pids,
            "tmpfs": dict(sorted(effective.tmpfs.items())),
        },
        "depends_on": list(config.depends_on),
        "egress": config.egress,
        "healthcheck": effective.has_healthcheck,
    }  # fmt: skip
