"""Rules about services: their settings, their containers in the engine, their documentation, their total limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.services import IMAGE_BASELINE_VARIABLES
from lyra_tasks.ports import docker_port
from lyra_tasks.rules.catalogue import (
    CAPABILITIES,
    CONTAINER_LIMITS,
    DOCS_COMPLETE,
    DOCS_DESCRIBED,
    EGRESS,
    HOST_ACCESS,
    HOST_MOUNTS,
    NO_NEW_PRIVILEGES,
    NON_ROOT,
    PRIVILEGED,
    PROXIMA_CAPACITY,
    READ_ONLY,
)
from lyra_tasks.rules.finding import RuleCheck

_NAMESPACE_KEYS = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode")
_LIMIT_KEYS = {"Memory": "memory", "MemorySwap": "memory with swap", "NanoCpus": "CPUs", "PidsLimit": "processes"}


def check_service_settings(name: str, service: Service, image_config: Mapping[str, Any]) -> Iterator[RuleCheck]:
    """Check the configuration of a service that runs an image with `image_config`."""
    relaxations = {
        READ_ONLY: "root file system is writable" if not service.read_only else "",
        EGRESS: "egress is allowed" if service.egress else "",
        CAPABILITIES: f"keeps the capabilities {', '.join(service.cap_add)}" if service.cap_add else "",
        NON_ROOT: "runs as root" if runs_as_root(service, image_config) else "",
        HOST_ACCESS: f"runs without {console.escape('; '.join(service.host_access))}" if service.host_access else "",
    }
    for rule, message in relaxations.items():
        yield RuleCheck(rule, f"services.{name}", (message,) if message else ())


def runs_as_root(service: Service, image_config: Mapping[str, Any]) -> bool:
    """Return whether the container's user is root, by number, by name or by default."""
    user = (service.user or str(image_config.get("User") or "")).split(":")[0]
    return user in {"", "root"} or (user.isdecimal() and int(user) == 0)


def check_container(
    name: str, service: Service, host_config: Mapping[str, Any], own_files: Collection[str] = ()
) -> Iterator[RuleCheck]:
    """Check a container by the `HostConfig` that the engine reports.

    `own_files` are read-only configs and secrets that Lyra mounts from the host if the engine cannot mount a file of a
    volume.
    """
    options = {str(option) for option in host_config.get("SecurityOpt") or []}
    can_gain_privileges = not options & {"no-new-privileges", "no-new-privileges:true"}
    is_writable = service.read_only and not host_config.get("ReadonlyRootfs")
    capabilities = sorted(set(_capability_names(host_config.get("CapAdd"))) - set(service.cap_add))
    if "ALL" not in _capability_names(host_config.get("CapDrop")):
        capabilities = ["the engine's defaults", *capabilities]
    messages_by_rule = {
        CONTAINER_LIMITS: list(_missing_limits(host_config)),
        HOST_MOUNTS: list(_host_mounts(host_config, own_files)),
        PRIVILEGED: list(_host_access(host_config)),
        NO_NEW_PRIVILEGES: ["the engine lets programs gain privileges"] if can_gain_privileges else [],
        READ_ONLY: ["the engine left the root file system writable"] if is_writable else [],
        CAPABILITIES: [f"the engine left capabilities: {', '.join(capabilities)}"] if capabilities else [],
    }
    for rule, messages in messages_by_rule.items():
        yield RuleCheck(rule, f"services.{name}", tuple(messages))


def check_capacity(config: Configuration) -> RuleCheck:
    """Check the limits of all promoted services together against Proxima's capacity (R3, R10)."""
    promoted = [service for service in config.services.values() if service.is_promoted]
    cpus = sum(service.limits.cpus for service in promoted)
    memory = sum(service.limits.memory for service in promoted)
    messages = []
    if config.proxima.cpus is not None and cpus > config.proxima.cpus:
        messages.append(
            f"limits of all services: {console.format_count(cpus, 'CPU')}, Proxima has {config.proxima.cpus:g}"
        )
    if config.proxima.memory is not None and memory > config.proxima.memory:
        required, available = console.format_bytes(memory), console.format_bytes(config.proxima.memory)
        messages.append(f"limits of all services: {required} of memory, Proxima has {available}")
    return RuleCheck(PROXIMA_CAPACITY, "services", tuple(messages))


def check_documentation(
    name: str,
    service: Service,
    image_config: Mapping[str, Any],
    own_variables: Iterable[str],
    *,
    has_dependents: bool,
    is_own: bool = True,
) -> RuleCheck:
    """Check whether the image's variables, volumes and ports are in the service's tables.

    `own_variables` are those that the project itself sets. If other services depend on one without `ports`, or have the
    ports of the same image, its ports are for them only. Ports that a third-party image merely could listen on need no
    documentation.
    """
    messages = []
    image_variables = {str(pair).partition("=")[0] for pair in image_config.get("Env") or []}
    for variable in sorted(image_variables & set(own_variables) - IMAGE_BASELINE_VARIABLES - set(service.environment)):
        messages.append(f"the image's ENV {console.escape(variable)} is not in environment")
    declared_paths = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in declared_paths:
            messages.append(f"the image's VOLUME {console.escape(path)} is neither in volumes nor in tmpfs")
    if is_own and (service.ports or not has_dependents):
        documented = {docker_port(port) for port in service.ports.values()}
        for port in map(str, image_config.get("ExposedPorts") or {}):
            if (port if "/" in port else f"{port}/tcp") not in documented:
                messages.append(f"the image's EXPOSE {console.escape(port)} is not in ports")
    return RuleCheck(DOCS_COMPLETE, f"services.{name}", tuple(messages))


def check_descriptions(name: str, service: Service) -> RuleCheck:
    """Check whether everything that an operator sets has a description."""
    tables: dict[str, Mapping[str, Any]] = {
        "environment": service.environment,
        "secrets": service.secrets,
        "volumes": service.volumes,
        "configs": service.configs,
    }
    messages = tuple(
        f"{table}.{key} has no description"
        for table, entries in tables.items()
        for key, entry in entries.items()
        if not entry.description.strip()
    )
    return RuleCheck(DOCS_DESCRIBED, f"services.{name}", messages)


def _missing_limits(host_config: Mapping[str, Any]) -> Iterator[str]:
    for key, resource in _LIMIT_KEYS.items():
        if int(host_config.get(key) or 0) <= 0:
            yield f"the engine does not limit its {resource}"
    if host_config.get("MemorySwap", 0) > host_config.get("Memory", 0) > 0:
        yield "it can swap beyond its memory limit"


def _host_mounts(host_config: Mapping[str, Any], own_files: Collection[str]) -> Iterator[str]:
    for bind in host_config.get("Binds") or []:
        yield f"host path {str(bind).split(':')[0]} is mounted"
    for mount in host_config.get("Mounts") or []:
        if mount.get("Type") not in {"bind", "npipe"}:
            continue
        source = str(mount.get("Source"))
        if source not in own_files or not mount.get("ReadOnly"):
            yield f"host path {source} is mounted at {mount.get('Target')}"
    if host_config.get("VolumesFrom"):
        yield "it mounts the volumes of another container"


def _host_access(host_config: Mapping[str, Any]) -> Iterator[str]:
    if host_config.get("Privileged"):
        yield "it is privileged"
    for key in _NAMESPACE_KEYS:
        if str(host_config.get(key) or "") == "host":
            yield f"it shares the host's namespace: {key}"
        if str(host_config.get(key) or "").startswith("container:"):
            yield f"it shares another container's namespace: {key}"
    for key in ("Devices", "DeviceRequests", "DeviceCgroupRules"):
        if host_config.get(key):
            yield f"it has access to host devices: {key}"
    for option in host_config.get("SecurityOpt") or []:
        if "unconfined" in str(option) or "disable" in str(option):
            yield f"it runs without a security profile: {option}"


def _capability_names(names: Any) -> list[str]:
    return [str(name).removeprefix("CAP_") for name in names or []]
