"""The rules about containers: as the configuration asks for them, and as the engine made them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look

_HOST = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode")
_IN_FORCE = {
    "Memory": "memory",
    "MemorySwap": "memory with swap",
    "NanoCpus": "CPUs",
    "PidsLimit": "processes",
}


def service_looks(name: str, service: Service, image_config: Mapping[str, Any]) -> Iterator[Look]:
    """What the configuration of `service` asks for, run from an image with `image_config`."""
    scope = f"services.{name}"
    loosened = {
        catalogue.READ_ONLY: "its root file system is writable" if not service.read_only else "",
        catalogue.EGRESS: "it has a way out of its network" if service.egress else "",
        catalogue.CAPABILITIES: f"it keeps the capabilities {', '.join(service.cap_add)}" if service.cap_add else "",
        catalogue.NON_ROOT: "it runs as root" if is_root(service, image_config) else "",
    }
    for rule, what in loosened.items():
        yield Look(rule, scope, (what,) if what else ())


def is_root(service: Service, image_config: Mapping[str, Any]) -> bool:
    """Whether the container's user is root, by number or name, or because nobody said anything."""
    user = (service.user or str(image_config.get("User") or "")).split(":")[0]
    return user in {"", "root"} or (user.isdecimal() and int(user) == 0)


def container_looks(
    name: str, service: Service, host_config: Mapping[str, Any], own_files: Collection[str] = ()
) -> Iterator[Look]:
    """What the engine made of it, by the `HostConfig` that it gives back.

    `own_files` are Lyra's own read-only configs and secrets, for engines that cannot mount a file of a volume.
    """
    scope = f"services.{name}"
    yield Look(catalogue.LIMITS, scope, tuple(_unlimited(host_config)))
    yield Look(catalogue.HOST_MOUNTS, scope, tuple(_host_mounts(host_config, own_files)))
    yield Look(catalogue.PRIVILEGED, scope, tuple(_of_the_host(host_config)))
    options = [str(each) for each in host_config.get("SecurityOpt") or []]
    gains = not any(each in {"no-new-privileges", "no-new-privileges:true"} for each in options)
    yield Look(catalogue.NO_NEW_PRIVILEGES, scope, ("the engine lets its programs gain privileges",) if gains else ())
    writable = service.read_only and not host_config.get("ReadonlyRootfs")
    yield Look(catalogue.READ_ONLY, scope, ("the engine left its root file system writable",) if writable else ())
    kept = sorted(set(_plain(host_config.get("CapAdd"))) - set(service.cap_add))
    if "ALL" not in _plain(host_config.get("CapDrop")):
        kept = ["the engine's usual ones", *kept]
    yield Look(catalogue.CAPABILITIES, scope, (f"the engine left it capabilities: {', '.join(kept)}",) if kept else ())


def _unlimited(host_config: Mapping[str, Any]) -> Iterator[str]:
    for key, what in _IN_FORCE.items():
        if int(host_config.get(key) or 0) <= 0:
            yield f"the engine sets no limit to its {what}"
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


def _of_the_host(host_config: Mapping[str, Any]) -> Iterator[str]:
    if host_config.get("Privileged"):
        yield "it is privileged"
    for key in _HOST:
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


def _plain(names: Any) -> list[str]:
    return [str(name).removeprefix("CAP_") for name in names or []]
