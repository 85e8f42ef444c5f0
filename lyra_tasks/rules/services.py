"""The rules about containers: as the configuration asks for them, and as the engine made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.ports import docker_port
from lyra_tasks.rules.catalogue import (
    CAPABILITIES,
    CONTAINER_LIMITS,
    DOCS_COMPLETE,
    DOCS_DESCRIBED,
    EGRESS,
    HOST_MOUNTS,
    NO_NEW_PRIVILEGES,
    NON_ROOT,
    PRIVILEGED,
    PROXIMA_CAPACITY,
    READ_ONLY,
)
from lyra_tasks.rules.finding import RuleCheck

_NAMESPACE_KEYS = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode")
_LIMIT_KEYS = {
    "Memory": "memory",
    "MemorySwap": "memory with swap",
    "NanoCpus": "CPUs",
    "PidsLimit": "processes",
}


def check_service_settings(name: str, service: Service, image_config: Mapping[str, Any]) -> Iterator[RuleCheck]:
    """What the configuration of `service` asks for, run from an image with `image_config`."""
    scope = f"services.{name}"
    relaxations = {
        READ_ONLY: "its root file system is writable" if not service.read_only else "",
        EGRESS: "it has a way out of its network" if service.egress else "",
        CAPABILITIES: f"it keeps the capabilities {', '.join(service.cap_add)}" if service.cap_add else "",
        NON_ROOT: "it runs as root" if runs_as_root(service, image_config) else "",
    }
    for rule, message in relaxations.items():
        yield RuleCheck(rule, scope, (message,) if message else ())


def runs_as_root(service: Service, image_config: Mapping[str, Any]) -> bool:
    """Whether the container's user is root, by number or name, or because nobody said anything."""
    user = (service.user or str(image_config.get("User") or "")).split(":")[0]
    return user in {"", "root"} or (user.isdecimal() and int(user) == 0)


def check_container(
    name: str, service: Service, host_config: Mapping[str, Any], own_files: Collection[str] = ()
) -> Iterator[RuleCheck]:
    """What the engine made of it, by the `HostConfig` that it gives back.

    `own_files` are Lyra's own read-only configs and secrets, for engines that cannot mount a file of a volume.
    """
    scope = f"services.{name}"
    yield RuleCheck(CONTAINER_LIMITS, scope, tuple(_missing_limits(host_config)))
    yield RuleCheck(HOST_MOUNTS, scope, tuple(_host_mounts(host_config, own_files)))
    yield RuleCheck(PRIVILEGED, scope, tuple(_host_access(host_config)))
    options = [str(option) for option in host_config.get("SecurityOpt") or []]
    can_gain_privileges = not any(option in {"no-new-privileges", "no-new-privileges:true"} for option in options)
    yield RuleCheck(
        NO_NEW_PRIVILEGES, scope, ("the engine lets its programs gain privileges",) if can_gain_privileges else ()
    )
    is_writable = service.read_only and not host_config.get("ReadonlyRootfs")
    yield RuleCheck(READ_ONLY, scope, ("the engine left its root file system writable",) if is_writable else ())
    capabilities = sorted(set(_capability_names(host_config.get("CapAdd"))) - set(service.cap_add))
    if "ALL" not in _capability_names(host_config.get("CapDrop")):
        capabilities = ["the engine's usual ones", *capabilities]
    yield RuleCheck(
        CAPABILITIES, scope, (f"the engine left it capabilities: {', '.join(capabilities)}",) if capabilities else ()
    )


def _missing_limits(host_config: Mapping[str, Any]) -> Iterator[str]:
    for key, resource in _LIMIT_KEYS.items():
        if int(host_config.get(key) or 0) <= 0:
            yield f"the engine sets no limit to its {resource}"
    if host_config.get("MemorySwap", 0) > host_config.get("Memory", 0) > 0:
        yield "it may swap beyond its memory"


def _host_mounts(host_config: Mapping[str, Any], own_files: Collection[str]) -> Iterator[str]:
    for bind in host_config.get("Binds") or []:
        yield f"{str(bind).split(':')[0]} of the host is mounted"
    for mount in host_config.get("Mounts") or []:
        if mount.get("Type") not in {"bind", "npipe"}:
            continue
        source = str(mount.get("Source"))
        if source not in own_files or not mount.get("ReadOnly"):
            yield f"{source} of the host is mounted at {mount.get('Target')}"
    if host_config.get("VolumesFrom"):
        yield "it has the volumes of another container"


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
            yield f"it has devices of the host: {key}"
    for option in host_config.get("SecurityOpt") or []:
        if "unconfined" in str(option) or "disable" in str(option):
            yield f"it runs without a profile: {option}"


def _capability_names(names: Any) -> list[str]:
    return [str(name).removeprefix("CAP_") for name in names or []]


# Set by base images or by the engine; not the project's to document.
IMAGE_BASELINE_VARIABLES = {"PATH", "HOME", "HOSTNAME", "LANG", "LC_ALL", "GPG_KEY"}


def check_capacity(config: Configuration) -> RuleCheck:
    """Whether the limits of all promoted services together fit into Proxima (R3, R10)."""
    promoted = [service for service in config.services.values() if service.is_promoted]
    cpus = sum(service.limits.cpus for service in promoted)
    memory = sum(service.limits.memory for service in promoted)
    messages = []
    if config.proxima.cpus is not None and cpus > config.proxima.cpus:
        messages.append(f"together they need {cpus:g} CPUs, Proxima has {config.proxima.cpus:g}")
    if config.proxima.memory is not None and memory > config.proxima.memory:
        required, available = console.format_bytes(memory), console.format_bytes(config.proxima.memory)
        messages.append(f"together they need {required} of memory, Proxima has {available}")
    return RuleCheck(PROXIMA_CAPACITY, "services", tuple(messages))


def check_documentation(
    name: str, service: Service, image_config: Mapping[str, Any], own_variables: Iterable[str], *, has_dependents: bool
) -> RuleCheck:
    """Whether the operator on Proxima is told of everything: `added` are the variables that the project itself sets.

    The ports of a service without any in its table that others depend on are for those alone.
    """
    messages = list(_missing_documentation(service, image_config, own_variables))
    if not (has_dependents and not service.ports):
        for exposed in image_config.get("ExposedPorts") or {}:
            port = str(exposed) if "/" in str(exposed) else f"{exposed}/tcp"
            if port not in {docker_port(service_port) for service_port in service.ports.values()}:
                messages.append(f"the image's EXPOSE {exposed} has no name in ports")
    return RuleCheck(DOCS_COMPLETE, f"services.{name}", tuple(messages))


def check_descriptions(name: str, service: Service) -> RuleCheck:
    """Whether everything that the operator is told of is explained, too."""
    return RuleCheck(DOCS_DESCRIBED, f"services.{name}", tuple(_missing_descriptions(service)))


def _missing_documentation(
    service: Service, image_config: Mapping[str, Any], own_variables: Iterable[str]
) -> Iterator[str]:
    image_variables = {str(pair).partition("=")[0] for pair in image_config.get("Env") or []}
    for variable in sorted(image_variables & set(own_variables) - IMAGE_BASELINE_VARIABLES - set(service.environment)):
        yield f"the image's ENV {variable} is not in environment"
    declared_paths = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in declared_paths:
            yield f"the image's VOLUME {path} is neither in volumes nor in tmpfs"


def _missing_descriptions(service: Service) -> Iterator[str]:
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
