"""Plan a development lab and compare it with the existing one. Pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.develop.ports import PublishedPorts
from lyra_tasks.digests import json_sha256, sha256_hex
from lyra_tasks.engine.objects.inventory import NETWORK, VOLUME
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.lab.facts import LabFacts
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.lab.plan import LabPlan, PlannedService, plan_lab
from lyra_tasks.ports import ContainerPort, docker_port

LABEL_PLAN = "dev.lyra.plan"
# Source volumes are chowned through the holder, which needs a writable root for it.
_HOLDER_HOST_CONFIG = {"ReadonlyRootfs": False}


@dataclass(frozen=True)
class PlannedSource:
    """A source volume: its mount path and the project directory that it mirrors."""

    volume: str
    path: str
    context: str


@dataclass(frozen=True)
class DevLabPlan:
    """A planned development lab, with a hash of each container's configuration (without random secrets)."""

    lab: LabPlan
    sources: Mapping[str, PlannedSource]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class ExistingContainer:
    """A container of an earlier `create`."""

    id: str
    running: bool
    plan_hash: str


@dataclass(frozen=True)
class ServiceChanges:
    """Names of the services to keep, replace, create and remove."""

    keep: tuple[str, ...]
    replace: tuple[str, ...]
    create: tuple[str, ...]
    remove: tuple[str, ...]

    @property
    def new_containers(self) -> tuple[str, ...]:
        """Services that get a new container."""
        return (*self.replace, *self.create)


def plan_dev_lab(profile: Configuration, facts: LabFacts, ports: PublishedPorts | None = None) -> DevLabPlan:
    """Plan the lab of all services of a development profile; without `ports`, the engine picks them at each start."""
    lab = plan_lab(profile, facts)
    volumes, holder_mounts = dict(lab.volumes), dict(lab.holder_mounts)
    sources: dict[str, PlannedSource] = {}
    services, hashes = {}, {}
    for name, planned_service in lab.services.items():
        service = planned_service.service
        if service.dev is not None and service.dev.sync and service.image in profile.images:
            volume = f"lyra-{facts.run}-{name}-source"
            path = _resolve_source_path(name, service, facts.services[name].image_config)
            sources[name] = PlannedSource(volume, path, profile.images[service.image].context)
            volumes[volume] = {}
            holder_mounts[volume] = f"{HOLDER_MOUNT_ROOT}/{volume}"
        services[name], hashes[name] = _adapt_to_development(
            planned_service, sources.get(name), (ports or {}).get(name, {})
        )
    # A holder is never changed: other volumes mean another holder, which mounts them before the old one is removed.
    holder = f"{lab.holder}-{json_sha256(holder_mounts)[:8]}"
    lab = replace(
        lab,
        volumes=volumes,
        holder_mounts=holder_mounts,
        holder=holder,
        services=services,
        holder_host_config=_HOLDER_HOST_CONFIG,
    )
    return DevLabPlan(lab, sources, hashes)


def _resolve_source_path(name: str, service: Service, image_config: Mapping[str, Any]) -> str:
    """Return the mount path of a service's source: as configured, else the working directory."""
    dev = service.dev
    path = (dev.source if dev else None) or service.working_dir or str(image_config.get("WorkingDir") or "")
    if path in {"", "/"}:
        raise ConfigurationError(
            f"services.{name}.dev: source is not set, and the image has no WORKDIR",
            hint=f'Add [services.{name}.dev] source = "/path/in/the/container"',
        )
    return path.rstrip("/")


def diff_services(plan: DevLabPlan, containers: Mapping[str, ExistingContainer]) -> ServiceChanges:
    """Compare a plan with the existing containers."""
    keep, changed, new = [], [], []
    for name, planned_hash in plan.hashes.items():
        container = containers.get(name)
        if container is None:
            new.append(name)
        elif container.plan_hash == planned_hash and (container.running or plan.lab.services[name].service.oneshot):
            keep.append(name)
        else:
            changed.append(name)
    removed = tuple(name for name in containers if name not in plan.hashes)
    return ServiceChanges(tuple(keep), tuple(changed), tuple(new), removed)


def plan_remaining_lab(lab: LabPlan, changes: ServiceChanges, existing: Collection[tuple[str, str]]) -> LabPlan:
    """Return the part of `lab` that is yet to be created; `existing` are the engine's objects by kind and name."""
    new_containers = set(changes.new_containers)
    waves = (tuple(name for name in wave if name in new_containers) for wave in lab.waves)
    return replace(
        lab,
        networks={name: network for name, network in lab.networks.items() if (NETWORK, name) not in existing},
        volumes={name: volume for name, volume in lab.volumes.items() if (VOLUME, name) not in existing},
        waves=tuple(wave for wave in waves if wave),
        services={name: service for name, service in lab.services.items() if name in new_containers},
    )


def _adapt_to_development(
    planned_service: PlannedService, source: PlannedSource | None, ports: Mapping[ContainerPort, int]
) -> tuple[PlannedService, str]:
    """Return the container with its source volume and published ports, labelled with the hash of its configuration."""
    payload = dict(planned_service.payload)
    host = dict(payload["HostConfig"])
    dev = planned_service.service.dev
    if source is not None:
        mount = {
            "Type": "volume", "Source": source.volume, "Target": source.path, "VolumeOptions": {"NoCopy": True},
        }  # fmt: skip
        host["Mounts"] = [*(other for other in host["Mounts"] if other["Target"] != source.path), mount]
        host["Tmpfs"] = {path: options for path, options in host["Tmpfs"].items() if path != source.path}
    if ports:
        host["PortBindings"] = {
            docker_port(port): [{**host["PortBindings"][docker_port(port)][0], "HostPort": str(published)}]
            for port, published in ports.items()
        }
    if dev is not None and dev.command is not None:
        payload |= {"Healthcheck": {"Test": ["NONE"]}, "Entrypoint": [""]}
    payload["HostConfig"] = host
    # Everything that requires a new container counts; secrets are random on each run.
    secret_names = {name for name, variable in planned_service.service.environment.items() if variable.secret}
    environment = {name: value for name, value in planned_service.environment.items() if name not in secret_names}
    files = {file.name: sha256_hex(file.content) for file in planned_service.config_files}
    document = {**payload, "Env": environment, "Networks": list(planned_service.networks), "Files": files}
    digest = json_sha256(document)
    payload["Labels"] = {**payload["Labels"], LABEL_PLAN: digest}
    return replace(planned_service, payload=payload, must_be_ready=dev is None), digest
