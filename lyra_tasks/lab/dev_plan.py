"""What a development lab will consist of, and what of it stands already, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.engine.ownership import NETWORK, VOLUME
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.lab.payload import HOLDER_FOLDER
from lyra_tasks.lab.plan import LabFacts, LabPlan, PlannedService
from lyra_tasks.lab.plan import plan as plan_lab
from lyra_tasks.records.store import canonical

LABEL_PLAN = "dev.lyra.plan"
# The source volumes are given to their users through the holder, which the engine refuses below a read-only root.
_HOLDER = {"ReadonlyRootfs": False}


@dataclass(frozen=True)
class PlannedSource:
    """A source volume, where it is mounted, and the folder of the project that it mirrors."""

    volume: str
    path: str
    context: str


@dataclass(frozen=True)
class DevPlan:
    """A development lab; `hashes` say of each container what it was planned as, random secrets left out."""

    lab: LabPlan
    sources: Mapping[str, PlannedSource]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Standing:
    """A container of an earlier `create`."""

    id: str
    running: bool
    hash: str


@dataclass(frozen=True)
class Steps:
    """What becomes of the services of a lab, by name."""

    keep: tuple[str, ...]
    replace: tuple[str, ...]
    make: tuple[str, ...]
    remove: tuple[str, ...]

    @property
    def started(self) -> tuple[str, ...]:
        """Those whose containers are new."""
        return (*self.replace, *self.make)


def plan(profile: Configuration, facts: LabFacts) -> DevPlan:
    """Plan the lab of all services of a development profile."""
    lab = plan_lab(profile, facts)
    volumes, held = dict(lab.volumes), dict(lab.holder_mounts)
    sources: dict[str, PlannedSource] = {}
    services, hashes = {}, {}
    for name, planned in lab.services.items():
        service = planned.service
        if service.dev is not None and service.image is not None:
            volume = f"lyra-{facts.run}-{name}-source"
            path = source_path(name, service, facts.services[name].image_config)
            sources[name] = PlannedSource(volume, path, profile.images[service.image].context)
            volumes[volume] = {}
            held[volume] = f"{HOLDER_FOLDER}/{volume}"
        services[name], hashes[name] = _developed(planned, sources.get(name))
    # a holder is never changed: other volumes are another one, that takes them over before the old one leaves
    holder = f"{lab.holder}-{hashlib.sha256(canonical(held).encode()).hexdigest()[:8]}"
    lab = replace(lab, volumes=volumes, holder_mounts=held, holder=holder, services=services, holder_host=_HOLDER)
    return DevPlan(lab, sources, hashes)


def source_path(name: str, service: Service, image_config: Mapping[str, Any]) -> str:
    """Where the source is mounted: as configured, else the working directory; ConfigurationError if there is none."""
    dev = service.dev
    path = (dev.source if dev else None) or service.working_dir or str(image_config.get("WorkingDir") or "")
    if path in {"", "/"}:
        raise ConfigurationError(
            f"services.{name}.dev: it is not said where the source belongs, and the image has no WORKDIR",
            hint=f'write [services.{name}.dev] source = "/path/in/the/container"',
        )
    return path.rstrip("/")


def converge(wanted: DevPlan, standing: Mapping[str, Standing]) -> Steps:
    """What to do with each service, so that what stands becomes what is wanted."""
    keep, changed, make = [], [], []
    for name, planned in wanted.hashes.items():
        there = standing.get(name)
        if there is None:
            make.append(name)
        elif there.hash == planned and (there.running or wanted.lab.services[name].service.oneshot):
            keep.append(name)
        else:
            changed.append(name)
    gone = tuple(name for name in standing if name not in wanted.hashes)
    return Steps(tuple(keep), tuple(changed), tuple(make), gone)


def remaining(lab: LabPlan, steps: Steps, have: Collection[tuple[str, str]]) -> LabPlan:
    """The part of `lab` that is still to be made, where the engine has the objects `have`, by kind and name."""
    started = set(steps.started)
    waves = (tuple(name for name in wave if name in started) for wave in lab.waves)
    return replace(
        lab,
        networks={name: each for name, each in lab.networks.items() if (NETWORK, name) not in have},
        volumes={name: each for name, each in lab.volumes.items() if (VOLUME, name) not in have},
        waves=tuple(wave for wave in waves if wave),
        services={name: each for name, each in lab.services.items() if name in started},
    )


def _developed(planned: PlannedService, source: PlannedSource | None) -> tuple[PlannedService, str]:
    """The container as a developer's, with a label of what it was planned as."""
    payload = dict(planned.payload)
    host = dict(payload["HostConfig"])
    dev = planned.service.dev
    if source is not None:
        mount = {
            "Type": "volume",
            "Source": source.volume,
            "Target": source.path,
            "VolumeOptions": {"NoCopy": True},
        }
        host["Mounts"] = [*(each for each in host["Mounts"] if each["Target"] != source.path), mount]
    if dev is not None and dev.command is not None:
        payload |= {"Healthcheck": {"Test": ["NONE"]}, "Entrypoint": [""]}
    payload["HostConfig"] = host
    digest = _hash(planned, payload)
    payload["Labels"] = {**payload["Labels"], LABEL_PLAN: digest}
    return replace(planned, payload=payload, attended=dev is None), digest


def _hash(planned: PlannedService, payload: Mapping[str, Any]) -> str:
    """Of everything that makes the container another one; secrets are random each time, and make none."""
    secret = {name for name, each in planned.service.environment.items() if each.secret}
    environment = {name: value for name, value in planned.environment.items() if name not in secret}
    files = {file.name: hashlib.sha256(file.content).hexdigest() for file in planned.config_files}
    document = {**payload, "Env": environment, "Networks": list(planned.networks), "Files": files}
    return hashlib.sha256(canonical(document).encode()).hexdigest()
