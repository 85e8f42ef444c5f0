"""Complete services from what their images declare or are known for: user, ports, volumes, variables and a check."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable

from lyra_tasks import console
from lyra_tasks.compose.translation.environment import VARIABLE_DESCRIPTIONS
from lyra_tasks.compose.translation.names import name_ports, unique_name
from lyra_tasks.config.models import Resources
from lyra_tasks.config.services import IMAGE_BASELINE_VARIABLES
from lyra_tasks.dockerfile.stages import DeclaredImage
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.scaffold.checks import add_check
from lyra_tasks.scaffold.drafts import Draft, DraftImage, DraftTable
from lyra_tasks.scaffold.known_images import KnownImage, find_known_image, is_covered
from lyra_tasks.scaffold.project_files import ProjectFiles
from lyra_tasks.units import format_size, parse_size

_DEFAULT_USER = "10001:10001"
_NON_ROOT_IMAGE = re.compile(r"nonroot|unprivileged|bitnami|chainguard")
_TMP = "/tmp"  # noqa: S108
_TMP_SIZE = "32m"
_TMPFS_SIZE = "16m"
_CPUS = 0.25
_MIN_CPUS = 0.05
_HOST_CPUS = os.cpu_count() or 1
_HOST_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_HOST_SHARE = Resources().host_share
_DEFAULT_DISK = "64m"


def complete_service(draft: Draft, name: str, project: ProjectFiles) -> None:
    """Fill in everything that the service does not set itself, and add a check."""
    service = draft.services[name]
    is_own = service.get("image") in draft.images
    image = draft.images[service.get("image")] if is_own else DraftImage()
    declared = image.declared
    reference = declared.base if is_own else str(service.get("image"))
    known = find_known_image(reference) or KnownImage(())
    if not _is_internal(draft, name, has_check=bool(declared.healthcheck or known.healthcheck), is_own=is_own):
        _add_ports(service, declared, known)
    user = str(service.get("user") or declared.user)
    if user.partition(":")[0] in {"", "0", "root"} and not (known.sets_user or _NON_ROOT_IMAGE.search(reference)):
        _assign_user(service, known, is_own=is_own, is_alpine="alpine" in reference)
    _add_volumes(service, declared, known)
    if known.healthcheck and not service.get("healthcheck") and not declared.healthcheck:
        service.add("healthcheck", {"exec": known.healthcheck})
    if known.capabilities and not service.get("cap_add"):
        names = ", ".join(f'"{capability}"' for capability in known.capabilities)
        service.todos.append(f"the image does not start without cap_add = [{names}], which needs a deviation")
    _add_environment(service, declared)
    _add_limits(service, known, choose_cpus(draft.services.values()))
    add_check(draft, name, image, project)


def _is_internal(draft: Draft, name: str, *, has_check: bool, is_own: bool) -> bool:
    """Return whether nothing but other services needs the ports: the Compose project does not publish any.

    Without a health check, `tcp` on a published port tells when the service is ready. A worker or a oneshot, which runs
    another command in the image of a server, has no ports at all.
    """
    service = draft.services[name]
    has_dependents = any(name in (other.get("depends_on") or ()) for other in draft.services.values())
    has_check = has_check or bool(service.get("healthcheck"))
    has_command = bool(service.get("command") or service.get("entrypoint"))
    users = [other for other in draft.services.values() if is_own and other.get("image") == service.get("image")]
    is_worker = service.get("oneshot") or (has_command and len(users) > 1 and not has_dependents)
    return not service.get("ports") and bool(is_worker or (has_check and (has_dependents or not is_own)))


def _add_ports(service: DraftTable, image: DeclaredImage, known: KnownImage) -> None:
    """Add what the image exposes to the ports of the service, or else what is known of the image."""
    ports = service.entries("ports")
    exposed = image.ports or (known.ports if not ports else ())
    missing = [port for port in exposed if port not in ports.values()]
    for name, port in name_ports([*ports.values(), *missing]).items():
        if port in missing:
            service.add_entry("ports", name if name not in ports else f"port-{port}".replace("/", "-"), port)


def _assign_user(service: DraftTable, known: KnownImage, *, is_own: bool, is_alpine: bool) -> None:
    """Set a user if the image has none, as the rule container.non-root requires."""
    if user := (is_alpine and known.alpine_user) or known.user:
        service.add("user", user)
    elif is_own:
        service.add("user", _DEFAULT_USER, "a guess: the Dockerfile has no USER; better set it there")
    else:
        service.todos.append("set a user if this image runs as root (rule container.non-root)")


def _add_volumes(service: DraftTable, image: DeclaredImage, known: KnownImage) -> None:
    """Add the volumes of the image and what is known of it, except where the service mounts something itself."""
    tables = [entry for key in ("volumes", "configs", "secrets") for entry in service.entries(key).values()]
    mounts = [*(str(entry["path"]) for entry in tables if "path" in entry), *service.entries("tmpfs")]
    service.todos += [
        f"the image keeps its data in {known.volumes[0]} and does not start with {path}"
        for path in known.misplaced
        if path in mounts
    ]
    for path in (*image.volumes, *known.volumes):
        if path == _TMP:
            service.add_entry("tmpfs", path, _TMP_SIZE)
        elif not re.fullmatch(r"/[^:\x00-\x1f]+", path):
            service.todos.append(f"the image declares a volume at {path!r}, which is not a path in a container")
        elif path not in mounts if path in image.volumes else not is_covered(path, mounts):
            mounts.append(path)
            name = unique_name(path.strip("/").replace("/", "-"), service.entries("volumes"))
            service.add_entry("volumes", name, {"path": path, "description": f"data in {path}"})
    needed = [tmpfs for path, tmpfs in known.tmpfs_for.items() if any(is_covered(mount, [path]) for mount in mounts)]
    for path in (*known.tmpfs, *needed):
        if not is_covered(path, mounts):
            service.add_entry("tmpfs", path, _TMPFS_SIZE)
    for name, volume in service.entries("volumes").items() if known.size != KnownImage.size else ():
        if not (volume.get("read_only") or "size" in volume):  # whoever writes to a read-only one says so
            service.add_entry("volumes", name, {"size": known.size})


def _add_environment(service: DraftTable, image: DeclaredImage) -> None:
    """Add variables that the image sets; the service's own take precedence, but get the description."""
    existing = service.entries("environment")
    for name, variable in image.environment.items():
        description = " ".join((variable.comment or VARIABLE_DESCRIPTIONS.get(name, "")).split())
        if name in existing:
            if description and not existing[name].get("description"):
                service.add_entry("environment", name, {"description": description})
        elif name in IMAGE_BASELINE_VARIABLES:
            continue
        elif variable.value is None:
            service.todos.append(f"the build sets {name}: document it in the environment of this service")
        elif re.search(r"[\x00-\x1f\x7f-\x9f]", variable.value):
            service.todos.append(f"{name} has several lines: use a file in configs")
        else:
            entry = {"secret": True, "required": True} if is_secret_name(name) else {"default": variable.value}
            service.add_entry("environment", name, entry | ({"description": description} if description else {}))


def choose_cpus(services: Iterable[DraftTable], host_cpus: int = _HOST_CPUS) -> float:
    """Return the CPU limit of a service that the Compose file gives none, with which all of them fit this machine."""
    limits: list[float | None] = [(service.given.get("limits") or {}).get("cpus") for service in services]
    left = host_cpus * _HOST_SHARE - sum(filter(None, limits))
    return min(_CPUS, max(_MIN_CPUS, math.floor(100 * left / max(1, limits.count(None))) / 100))


def describe_shortage(
    services: Iterable[DraftTable], host_cpus: int = _HOST_CPUS, host_memory: int = _HOST_MEMORY
) -> str:
    """Return what the limits of all services together are, if this machine does not give that much; else ''."""
    limits = [service.entries("limits") for service in services]
    cpus = sum(float(table.get("cpus", 1)) for table in limits)
    sizes = [(table.get("memory", KnownImage.memory), table.get("disk", _DEFAULT_DISK)) for table in limits]
    memory = sum(parse_size(size) for pair in sizes for size in pair)
    if cpus <= host_cpus * _HOST_SHARE + 0.001 and memory <= host_memory * _HOST_SHARE:
        return ""
    machine = f"{host_cpus} CPUs, {console.format_bytes(host_memory)}"
    return (
        f"the limits are {cpus:g} CPUs and {console.format_bytes(memory)} together, and an environment may use "
        f"{_HOST_SHARE:.0%} of this machine ({machine}): lower limits.cpus and limits.memory, raise [resources] "
        "host_share, or leave out services with `ignore` in [compose]"
    )


def _add_limits(service: DraftTable, known: KnownImage, cpus: float) -> None:
    limits = service.entries("limits")
    sizes = [volume.get("size", KnownImage.size) for volume in service.entries("volumes").values()]
    disk = sum(map(parse_size, (*sizes, *service.entries("tmpfs").values(), _TMP_SIZE)))
    if "cpus" not in limits:
        service.add_entry("limits", "cpus", cpus)
    if known.memory != KnownImage.memory and "memory" not in limits:
        service.add_entry("limits", "memory", known.memory)
    if disk > parse_size(limits.get("disk", _DEFAULT_DISK)):
        service.add_entry("limits", "disk", format_size(disk))
