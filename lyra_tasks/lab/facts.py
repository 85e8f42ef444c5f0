"""Collect what a lab plan depends on: image ids, values, features of the engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.models import Service
from lyra_tasks.config.services import effective_user, image_healthcheck
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.objects.users import resolve_image_user
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.secrets import redacted_values

MOUNTS_DIRECTORY = "mounts"
_SUBPATH_API_VERSION = (1, 45)


@dataclass(frozen=True)
class ServiceFacts:
    """Facts for planning a service: its image, the image's configuration, the values to use, the ids of its user."""

    image_id: str
    image_config: Mapping[str, Any]
    environment: Mapping[str, str]
    secrets: Mapping[str, bytes]
    configs: Mapping[str, bytes]
    user_ids: UserIds | None = None


@dataclass(frozen=True)
class LabFacts:
    """Facts for planning a lab.

    `secret_values` are declared secrets to redact from logs, including those that no service gets.
    """

    run: str
    publish_on: str
    supports_subpaths: bool
    files_directory: str
    services: Mapping[str, ServiceFacts]
    secret_values: tuple[str, ...] = ()


def collect_lab_facts(
    work: Workspace,
    records: Mapping[str, ImageRecord],
    *,
    run: str = "",
    files_directory: Path | None = None,
    files: Mapping[str, bytes] | None = None,
) -> LabFacts:
    """Collect what `plan_lab` needs for the lab of `run` (default: this run).

    `files_directory` is for configs and secrets on engines that cannot mount single files of a volume (default: in the
    run's directory). `files` are the project's config files by path, if they have been read already.
    """
    engine = work.engine
    if engine.facts.missing_limits:
        missing = ", ".join(engine.facts.missing_limits)
        raise PreconditionError(f"This engine cannot limit {missing}", hint=engine.facts.limits_fix)
    supports_subpaths = engine.facts.api >= _SUBPATH_API_VERSION
    if not engine.shares_files and not supports_subpaths:
        _refuse_mounted_files(work.config.services, engine.facts.version)
    if not engine.host_address:
        _refuse_ports(work.config.services)
    images = {name: records[work.config.image_name(name)].image_id for name in work.config.services}
    image_documents = {image: inspect_image(engine, image) for image in set(images.values())}
    services = {
        name: _collect_service_facts(work, name, service, images[name], image_documents[images[name]], files or {})
        for name, service in work.config.services.items()
    }
    return LabFacts(
        run=run or work.run,
        publish_on=engine.host_address,
        supports_subpaths=supports_subpaths,
        files_directory=str(files_directory or work.run_directory / MOUNTS_DIRECTORY),
        services=services,
        secret_values=redacted_values(work.config, work.root),
    )


def _refuse_mounted_files(services: Mapping[str, Service], version: str) -> None:
    """Refuse configs and secrets: without volume subpaths they are bind mounted, from files that the engine lacks."""
    services_with_files = [
        f"services.{name}" for name, service in services.items() if service.configs or service.secrets
    ]
    if services_with_files:
        raise PreconditionError(
            f"Cannot mount configs and secrets: Docker Engine {version} takes them from its own machine, not from here",
            hint="Use Docker Engine 26.0 or newer there, or run this command there, outside of containers",
            details=tuple(services_with_files),
        )


def _refuse_ports(services: Mapping[str, Service]) -> None:
    """Refuse ports where this program runs in a container of the engine, in a network without a gateway."""
    services_with_ports = [f"services.{name}" for name, service in services.items() if service.ports]
    if services_with_ports:
        raise PreconditionError(
            "Cannot reach published ports from this container: its network has no gateway",
            hint="Run the container with `--network bridge` or `--network host`",
            details=tuple(services_with_ports),
        )


def _collect_service_facts(
    work: Workspace,
    name: str,
    service: Service,
    image: str,
    image_document: Mapping[str, Any] | None,
    files: Mapping[str, bytes],
) -> ServiceFacts:
    if image_document is None:
        raise PreconditionError(
            f"services.{name}: image {image} is no longer in the engine", hint="Run `build test` again"
        )
    config = image_document["Config"]
    return ServiceFacts(
        image_id=str(image_document["Id"]),
        image_config={**config, "Healthcheck": config.get("Healthcheck") if image_healthcheck(config) else None},
        environment=resolve_test_environment(name, service),
        secrets={
            key: (secret.test_value if secret.test_value is not None else secrets.token_hex(32)).encode()
            for key, secret in service.secrets.items()
        },
        configs={
            key: file.read(lambda source: files[source] if source in files else (work.root / source).read_bytes())
            for key, file in service.configs.items()
        },
        user_ids=resolve_image_user(
            work.engine, work.owner, str(image_document["Id"]), effective_user(service, config), work.paths.cache
        ),
    )


def resolve_test_environment(name: str, service: Service) -> dict[str, str]:
    """Return the environment of a service in tests: test value, default, or a random value for a secret.

    Raises ConfigurationError if a required variable has no value.
    """
    values = {}
    missing = []
    for key, variable in service.environment.items():
        value = variable.test_value if variable.test_value is not None else variable.default
        if value is None and variable.secret:
            value = secrets.token_hex(16)
        if value is not None:
            values[key] = value
        elif variable.required:
            missing.append(f"services.{name}.environment.{key}: is required and has no value for tests")
    if missing:
        raise ConfigurationError(missing[0], hint="Add a default or a test_value", details=tuple(missing[1:]))
    return values
