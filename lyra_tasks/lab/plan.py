"""What a lab will consist of, as a value: networks, volumes, containers in waves, and what they may use together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.services import running_shape, start_order
from lyra_tasks.engine.objects import PlacedFile
from lyra_tasks.engine.ownership import LABEL_SERVICE
from lyra_tasks.images.needles import written_forms
from lyra_tasks.lab.payload import HOLDER_FOLDER, container_payload


@dataclass(frozen=True)
class ServiceFacts:
    """What was found out about a service before planning: its image, the image's configuration, values to use."""

    image_id: str
    image_config: Mapping[str, Any]
    environment: Mapping[str, str]
    secrets: Mapping[str, bytes]
    configs: Mapping[str, bytes]


@dataclass(frozen=True)
class LabFacts:
    """What planning depends on; `subpaths` is whether the engine mounts single files of a volume (API 1.45).

    `masked` are secrets of the project that no service is given, and that must not be in a log either.
    """

    run: str
    publish_on: str
    subpaths: bool
    health_starts_fast: bool
    files_folder: str
    services: Mapping[str, ServiceFacts]
    masked: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedService:
    """One container: the engine's create payload, further networks, and the files of its configs and secrets.

    One that is not `attended` is started and not waited for: a developer's, which need not work yet.
    """

    name: str
    container: str
    payload: Mapping[str, Any]
    networks: tuple[str, ...]
    config_files: tuple[PlacedFile, ...]
    secret_files: tuple[PlacedFile, ...]
    service: Service
    environment: Mapping[str, str]
    health_command: bool
    masked: tuple[str, ...]
    cpus: float
    memory: int
    attended: bool = True


@dataclass(frozen=True)
class LabPlan:
    """A whole lab; `holder_host` is what the holder's `HostConfig` has otherwise than usual.

    The names of all its objects begin with `prefix`; its services' logs are in the folder `logs` of the run's.
    """

    run: str
    prefix: str
    logs: str
    networks: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Mapping[str, str]]
    holder: str
    holder_mounts: Mapping[str, str]
    waves: tuple[tuple[str, ...], ...]
    services: Mapping[str, PlannedService]
    holder_host: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cpus(self) -> float:
        """The sum of all CPU limits, in cores."""
        return sum(each.cpus for each in self.services.values())

    @property
    def memory(self) -> int:
        """The sum of all memory limits, data volumes included, in bytes."""
        return sum(each.memory for each in self.services.values())


def plan(config: Configuration, facts: LabFacts, group: str = "", number: int = 0) -> LabPlan:
    """Plan the lab of all services of `config`; a run has one for each group of checks, told apart by its number."""
    prefix = _prefix(facts.run, number)
    logs = f"logs/{group}" if group else "logs"
    facts = replace(facts, files_folder=f"{facts.files_folder}/{number}") if number else facts
    inner, edge, out = f"{prefix}-inner", f"{prefix}-edge", f"{prefix}-out"
    networks: dict[str, dict[str, Any]] = {inner: {"Internal": True}}
    volumes: dict[str, dict[str, str]] = {}
    held: dict[str, str] = {}
    services = {}
    masked = _masked(config, facts)
    for name, service in config.services.items():
        joined = [inner]
        # one bridge at most besides the inner network: of two, the engine would choose the way out by their names
        if service.egress:
            networks[out] = {}
            joined.append(out)
        elif service.ports:
            # no masquerading: what is published answers, but nothing gets out
            networks[edge] = {"Options": {"com.docker.network.bridge.enable_ip_masquerade": "false"}}
            joined.append(edge)
        own = _volumes(prefix, name, service, facts.services[name], facts.subpaths)
        volumes |= own
        held |= {volume: f"{HOLDER_FOLDER}/{volume}" for volume in own}
        services[name] = _service(prefix, name, service, facts, tuple(joined), masked)
    waves = tuple(tuple(wave) for wave in start_order(config.services))
    return LabPlan(facts.run, f"{prefix}-", logs, networks, volumes, f"{prefix}-holder", held, waves, services)


def empty(run: str, number: int) -> LabPlan:
    """A lab of nothing, for checks that need no service to run; its number must not be that of any other lab."""
    return LabPlan(run, f"{_prefix(run, number)}-", "logs", {}, {}, "", {}, (), {})


def _prefix(run: str, number: int) -> str:
    return f"lyra-{run}.{number}" if number else f"lyra-{run}"


def _volumes(
    prefix: str, name: str, service: Service, facts: ServiceFacts, subpaths: bool
) -> dict[str, dict[str, str]]:
    found = {}
    for key, volume in service.volumes.items():
        uid, gid = volume.owner.split(":")
        options = f"size={volume.size},uid={uid},gid={gid},mode=0755"
        found[f"{prefix}-{name}-data-{key}"] = {"type": "tmpfs", "device": "tmpfs", "o": options}
    if subpaths and facts.configs:
        found[f"{prefix}-{name}-configs"] = {}
    if subpaths and facts.secrets:
        found[f"{prefix}-{name}-secrets"] = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0755"}
    return found


def _service(
    prefix: str, name: str, service: Service, facts: LabFacts, networks: tuple[str, ...], masked: tuple[str, ...]
) -> PlannedService:
    own = facts.services[name]
    shape = running_shape(service, own.image_config)
    memory = shape.memory + sum(volume.size for volume in service.volumes.values())
    uid, gid = _numeric(shape.user)
    payload = container_payload(
        prefix, name, service, own.image_id, shape,
        memory=memory,
        environment=own.environment,
        image_config=own.image_config,
        network=networks[0],
        publish_on=facts.publish_on,
        files_folder=None if facts.subpaths else f"{facts.files_folder}/{name}",
        health_starts_fast=facts.health_starts_fast,
    )  # fmt: skip
    return PlannedService(
        name=name,
        container=f"{prefix}-{name}",
        payload={**payload, "Labels": {LABEL_SERVICE: name}},
        networks=networks[1:],
        config_files=tuple(PlacedFile(key, content) for key, content in sorted(own.configs.items())),
        secret_files=tuple(
            PlacedFile(key, content, uid, gid, 0o400 if uid else 0o444) for key, content in sorted(own.secrets.items())
        ),
        service=service,
        environment=own.environment,
        health_command=bool(payload.get("Healthcheck")),
        masked=masked,
        cpus=service.limits.cpus,
        memory=memory,
    )


def _masked(config: Configuration, facts: LabFacts) -> tuple[str, ...]:
    """What no log may hold, whichever service prints it: the secrets of all of them."""
    values = list(facts.masked)
    for name, service in config.services.items():
        own = facts.services[name]
        values += [own.environment[key] for key, each in service.environment.items() if each.secret]
        values += [content.decode(errors="replace").strip() for content in own.secrets.values()]
    return blotted(values)


def blotted(values: Iterable[str]) -> tuple[str, ...]:
    """What may not stand in a log for the sake of some secrets, the longest first: whole, and in every form.

    Logs are written line by line: of a value with several, each is left out.
    """
    lines = [*values]
    lines += [line.strip() for value in lines for line in value.splitlines()]
    found = {*(value for value in lines if len(value) >= 4), *written_forms(lines)}
    return tuple(sorted(found, key=len, reverse=True))


def _numeric(user: str) -> tuple[int, int]:
    """The ids in `10001:10001` or `10001`; (0, 0) for a name, whose number only the image knows."""
    first, _, second = user.partition(":")
    if not first.isdigit():
        return 0, 0
    return int(first), int(second) if second.isdigit() else int(first)
