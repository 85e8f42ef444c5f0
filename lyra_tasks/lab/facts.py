"""What a lab plan depends on, found out: which images, which values, what the engine can do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.services import image_healthcheck
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.lab.plan import LabFacts, ServiceFacts
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.secrets import redacted_values

_SUBPATH_API_VERSION = (1, 45)
_START_INTERVAL_API_VERSION = (1, 44)


def collect_lab_facts(
    work: Workspace, records: Mapping[str, ImageRecord], *, run: str = "", files_directory: Path | None = None
) -> LabFacts:
    """Look up what `plan` needs for the lab of `run` (default: this one).

    `files_folder` is for configs and secrets on engines that cannot mount single files of a volume; default: the run's
    folder. ConfigurationError for a required value that is nowhere.
    """
    engine = work.engine
    supports_subpaths = engine.facts.api >= _SUBPATH_API_VERSION
    if engine.is_remote and not supports_subpaths:
        _refuse_mounted_files(work.config.services, engine.facts.version)
    images = {name: _resolve_image_id(service, records) for name, service in work.config.services.items()}
    image_documents = {image: inspect_image(engine, image) for image in set(images.values())}
    services = {
        name: _collect_service_facts(work, name, service, images[name], image_documents[images[name]])
        for name, service in work.config.services.items()
    }
    return LabFacts(
        run=run or work.run,
        publish_on=engine.publish_address,
        supports_subpaths=supports_subpaths,
        supports_start_interval=engine.facts.api >= _START_INTERVAL_API_VERSION,
        files_directory=str(files_directory or work.run_directory / "mounts"),
        services=services,
        secret_values=redacted_values(work.config, work.root),
    )


def _refuse_mounted_files(services: Mapping[str, Service], version: str) -> None:
    """Without subpaths of volumes, configs and secrets are mounted from this machine, which that engine cannot see."""
    services_with_files = [
        f"services.{name}" for name, service in services.items() if service.configs or service.secrets
    ]
    if services_with_files:
        raise PreconditionError(
            f"Docker Engine {version} on another machine cannot be given configs and secrets",
            hint="use an engine of version 26.0 or newer there, or an older one on this machine",
            details=tuple(services_with_files),
        )


def _resolve_image_id(service: Service, records: Mapping[str, ImageRecord]) -> str:
    """Own images by digest, as they were recorded; a double by the reference it is given as."""
    return records[service.image].image_id if service.image is not None else str(service.external)


def _collect_service_facts(
    work: Workspace, name: str, service: Service, image: str, image_document: Mapping[str, Any] | None
) -> ServiceFacts:
    if image_document is None:
        raise PreconditionError(
            f"services.{name}: the engine does not hold the image {image}",
            hint=f"load it first, for example with `docker load` or `docker pull {image}`",
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
        configs={key: (work.root / file.source).read_bytes() for key, file in service.configs.items()},
    )


def resolve_test_environment(name: str, service: Service) -> dict[str, str]:
    """The variables a service gets in a test: test value, else default, else for a secret a random one."""
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
        raise ConfigurationError(missing[0], hint="give it a default or a test_value", details=tuple(missing[1:]))
    return values
