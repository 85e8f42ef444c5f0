"""The rules about a project as a whole: what Proxima can hold, and what must be written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.ports import docker_name
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look

# Set by base images or by the engine; not the project's to document.
_USUAL = {"PATH", "HOME", "HOSTNAME", "LANG", "LC_ALL", "GPG_KEY"}


def capacity_look(config: Configuration) -> Look:
    """Whether the limits of all promoted services together fit into Proxima (R3, R10)."""
    promoted = [service for service in config.services.values() if service.promoted]
    cpus = sum(service.limits.cpus for service in promoted)
    memory = sum(service.limits.memory for service in promoted)
    found = []
    if config.proxima.cpus is not None and cpus > config.proxima.cpus:
        found.append(f"together they need {cpus:g} CPUs, Proxima has {config.proxima.cpus:g}")
    if config.proxima.memory is not None and memory > config.proxima.memory:
        have, there = console.size(memory), console.size(config.proxima.memory)
        found.append(f"together they need {have} of memory, Proxima has {there}")
    return Look(catalogue.CAPACITY, "services", tuple(found))


def docs_look(
    name: str, service: Service, image_config: Mapping[str, Any], added: Iterable[str], *, reached_by_neighbours: bool
) -> Look:
    """Whether the operator on Proxima is told of everything: `added` are the variables that the project itself sets.

    The ports of a service without any in its table that others depend on are for those alone.
    """
    found = list(_undocumented(service, image_config, added))
    if not (reached_by_neighbours and not service.ports):
        for exposed in image_config.get("ExposedPorts") or {}:
            port = str(exposed) if "/" in str(exposed) else f"{exposed}/tcp"
            if port not in {docker_name(each) for each in service.ports.values()}:
                found.append(f"the image's EXPOSE {exposed} has no name in ports")
    return Look(catalogue.DOCS, f"services.{name}", tuple(found))


def description_look(name: str, service: Service) -> Look:
    """Whether everything that the operator is told of is explained, too."""
    return Look(catalogue.DESCRIBED, f"services.{name}", tuple(_undescribed(service)))


def _undocumented(service: Service, image_config: Mapping[str, Any], added: Iterable[str]) -> Iterator[str]:
    there = {str(pair).partition("=")[0] for pair in image_config.get("Env") or []}
    for variable in sorted(there & set(added) - _USUAL - set(service.environment)):
        yield f"the image's ENV {variable} is not in environment"
    covered = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in covered:
            yield f"the image's VOLUME {path} is neither in volumes nor in tmpfs"


def _undescribed(service: Service) -> Iterator[str]:
    tables: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("environment", service.environment),
        ("secrets", service.secrets),
        ("volumes", service.volumes),
        ("configs", service.configs),
    )
    for table, entries in tables:
        for key, entry in entries.items():
            if not entry.description.strip():
                yield f"{table}.{key} has no description"
