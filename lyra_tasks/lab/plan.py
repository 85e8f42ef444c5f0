"""Plan the networks, volumes and containers of a lab, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.services import effective_service, start_order
from lyra_tasks.engine.objects.containers import ContainerFile
from lyra_tasks.engine.objects.ownership import LABEL_SERVICE
from lyra_tasks.lab.facts import LabFacts, ServiceFacts
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT, build_container_payload, name_data_volume
from lyra_tasks.rules.secrets import expand_secret_values


@dataclass(frozen=True)
class PlannedService:
    """A planned container: its create payload, further networks, and the files of its configs and secrets.

    `must_be_ready` is false for a service under development: it is started, but may fail.
    """

    name: str
    container: str
    payload: Mapping[str, Any]
    networks: tuple[str, ...]
    config_files: tuple[ContainerFile, ...]
    secret_files: tuple[ContainerFile, ...]
    service: Service
    environment: Mapping[str, str]
    cpus: float
    memory: int
    must_be_ready: bool = True


@dataclass(frozen=True)
class LabPlan:
    """A planned lab.

    The names of all its objects begin with `prefix`. `logs_path` is relative to the run's directory. `secret_values`
    are to be redacted from all logs and messages. `holder_host_config` overrides settings in the holder's `HostConfig`.
    """

    run: str
    prefix: str
    logs_path: str
    networks: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Mapping[str, str]]
    holder: str
    holder_mounts: Mapping[str, str]
    waves: tuple[tuple[str, ...], ...]
    services: Mapping[str, PlannedService]
    secret_values: tuple[str, ...] = field(default=(), repr=False)
    holder_host_config: Mapping[str, Any] = field(default_factory=dict)

    def without_services(self) -> LabPlan:
        """Return this lab without anything to create."""
        return replace(self, networks={}, volumes={}, holder="", holder_mounts={}, waves=(), services={})

    @property
    def cpus(self) -> float:
        """Return the sum of all CPU limits, in cores."""
        return sum(service.cpus for service in self.services.values())

    @property
    def memory(self) -> int:
        """Return the sum of all memory limits, including data volumes, in bytes."""
        return sum(service.memory for service in self.services.values())


def plan_lab(config: Configuration, facts: LabFacts, group: str = "", number: int = 0) -> LabPlan:
    """Plan the lab of all services; a run has one lab per group of checks, each with its own number."""
    prefix = _object_prefix(facts.run, number)
    facts = replace(facts, files_directory=f"{facts.files_directory}/{number}") if number else facts
    inner_network, edge_network, egress_network = f"{prefix}-inner", f"{prefix}-edge", f"{prefix}-out"
    networks: dict[str, dict[str, Any]] = {inner_network: {"Internal": True}}
    volumes = _plan_data_volumes(prefix, config.services)
    services = {}
    for name, service in config.services.items():
        service_networks = [inner_network]
        # at most one bridge besides the inner network: of two, the engine would pick the default route by their names
        if service.egress:
            networks[egress_network] = {}
            service_networks.append(egress_network)
        elif service.ports:
            # without masquerading, published ports answer, but the container cannot reach out
            networks[edge_network] = {"Options": {"com.docker.network.bridge.enable_ip_masquerade": "false"}}
            service_networks.append(edge_network)
        volumes |= _plan_file_volumes(prefix, name, facts.services[name], facts.supports_subpaths)
        services[name] = _plan_service(prefix, name, service, facts, tuple(service_networks))
    return LabPlan(
        run=facts.run,
        prefix=f"{prefix}-",
        logs_path=f"logs/{group}" if group else "logs",
        networks=networks,
        volumes=volumes,
        holder=f"{prefix}-holder",
        holder_mounts={volume: f"{HOLDER_MOUNT_ROOT}/{volume}" for volume in volumes},
        waves=tuple(tuple(wave) for wave in start_order(config.services)),
        services=services,
        secret_values=_collect_secret_values(config, facts),
    )


def plan_empty_lab(run: str, number: int) -> LabPlan:
    """Return a lab without services, for checks of images; its number must be unique in the run."""
    return LabPlan(run, f"{_object_prefix(run, number)}-", "logs", {}, {}, "", {}, (), {})


def _object_prefix(run: str, number: int) -> str:
    return f"lyra-{run}.{number}" if number else f"lyra-{run}"


def _plan_data_volumes(prefix: str, services: Mapping[str, Service]) -> dict[str, dict[str, str]]:
    """Plan the volumes for data; one that services share is as the first that writes to it has it."""
    volumes: dict[str, dict[str, str]] = {}
    names = [name for wave in start_order(services) for name in wave]
    uses = [(name, key, volume) for name in names for key, volume in services[name].volumes.items()]
    for name, key, volume in sorted(uses, key=lambda use: use[2].read_only):
        # The engine copies content, owner and mode from the image; a directory that it does not have belongs to root
        uid, gid = (volume.owner or "0:0").split(":")
        options = f"size={volume.size},uid={uid},gid={gid},mode=0755"
        volumes.setdefault(
            name_data_volume(prefix, name, key, volume), {"type": "tmpfs", "device": "tmpfs", "o": options}
        )
    return volumes


def _plan_file_volumes(
    prefix: str, name: str, facts: ServiceFacts, supports_subpaths: bool
) -> dict[str, dict[str, str]]:
    volumes: dict[str, dict[str, str]] = {}
    if supports_subpaths and facts.configs:
        volumes[f"{prefix}-{name}-configs"] = {}
    if supports_subpaths and facts.secrets:
        volumes[f"{prefix}-{name}-secrets"] = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0755"}
    return volumes


def _plan_service(
    prefix: str, name: str, service: Service, facts: LabFacts, networks: tuple[str, ...]
) -> PlannedService:
    service_facts = facts.services[name]
    effective = effective_service(service, service_facts.image_config, service_facts.user_ids)
    memory = effective.memory + sum(volume.size for volume in service.volumes.values())
    uid, gid = effective.user_ids or (0, 0)
    payload = build_container_payload(prefix, name, service, facts, effective, memory=memory, network=networks[0])
    return PlannedService(
        name=name,
        container=f"{prefix}-{name}",
        payload={**payload, "Labels": {LABEL_SERVICE: name}},
        networks=networks[1:],
        config_files=tuple(ContainerFile(key, content) for key, content in sorted(service_facts.configs.items())),
        secret_files=tuple(
            ContainerFile(key, content, uid, gid, 0o400 if uid else 0o444)
            for key, content in sorted(service_facts.secrets.items())
        ),
        service=service,
        environment=service_facts.environment,
        cpus=service.limits.cpus,
        memory=memory,
    )


def _collect_secret_values(config: Configuration, facts: LabFacts) -> tuple[str, ...]:
    """Return the secrets of all services, since any log may contain any of them."""
    values = list(facts.secret_values)
    for name, service in config.services.items():
        service_facts = facts.services[name]
        values += [service_facts.environment[key] for key, variable in service.environment.items() if variable.secret]
        values += [content.decode(errors="replace").strip() for content in service_facts.secrets.values()]
    return expand_secret_values(values)
