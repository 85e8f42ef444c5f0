"""Services as they run: merged with their image, in start order, or with the development profile applied."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.containers import UserIds, parse_user_numbers
from lyra_tasks.config.models import Command, Configuration, Proxima, Service
from lyra_tasks.config.platforms import image_platforms, native_platform
from lyra_tasks.digests import sha256_hex
from lyra_tasks.errors import UsageError
from lyra_tasks.suggest import select_known

_TMP = "/tmp"  # noqa: S108
_MIN_TMP_BYTES = 1024**2
IMAGE_BASELINE_VARIABLES = frozenset({"PATH", "HOME", "HOSTNAME", "LANG", "LC_ALL", "GPG_KEY"})
"""Variables that base images set and that need no description."""


@dataclass(frozen=True)
class EffectiveService:
    """Settings that depend on both service and image (sizes in bytes).

    `tmpfs` has `/tmp`, the service's own entries, and every VOLUME of the image that no volume covers; they belong to
    `user_ids`, which is None if the user has a name that could not be resolved.
    """

    user: str
    user_ids: UserIds | None
    tmpfs: Mapping[str, int]
    memory: int
    has_healthcheck: bool


def effective_user(service: Service, image_config: Mapping[str, Any]) -> str:
    """Return the user of the container, `USER[:GROUP]`, empty for root."""
    return service.user or str(image_config.get("User") or "")


def effective_service(
    service: Service, image_config: Mapping[str, Any], user_ids: UserIds | None = None
) -> EffectiveService:
    """Merge a service with its image's configuration; `user_ids` are those of a user with a name.

    `/tmp` gets what the volumes leave of `limits.disk`, at least 1 MiB. `memory` includes the size of every tmpfs.
    """
    covered_paths = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    remaining = service.limits.disk - sum(volume.size for volume in service.volumes.values())
    tmpfs = {**({} if _TMP in covered_paths else {_TMP: max(remaining, _MIN_TMP_BYTES)}), **service.tmpfs}
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in covered_paths:
            tmpfs.setdefault(path.rstrip("/"), service.limits.disk)
    user = effective_user(service, image_config)
    return EffectiveService(
        user=user,
        user_ids=user_ids or parse_user_numbers(user),
        tmpfs=tmpfs,
        memory=service.limits.memory + sum(tmpfs.values()),
        has_healthcheck=_has_healthcheck(service, image_config),
    )


def _has_healthcheck(service: Service, image_config: Mapping[str, Any]) -> bool:
    check = service.healthcheck
    if check is not None and (check.disable or check.has_kind):
        return not check.disable
    return bool(image_healthcheck(image_config))


def image_healthcheck(image_config: Mapping[str, Any]) -> list[str]:
    """Return the test of the image's HEALTHCHECK, or an empty list."""
    test = (image_config.get("Healthcheck") or {}).get("Test") or []
    return [] if test[:1] == ["NONE"] else [str(argument) for argument in test]


def to_argv(command: Command) -> list[str]:
    """Return a command as an argument list; a string is run by the container's shell."""
    return list(command) if isinstance(command, list) else ["/bin/sh", "-c", command]


def start_order(services: Mapping[str, Service]) -> list[list[str]]:
    """Return the service names in waves, each of which depends on earlier ones only."""
    sorter = graphlib.TopologicalSorter({name: service.depends_on for name, service in services.items()})
    sorter.prepare()
    waves: list[list[str]] = []
    while sorter.is_active():
        waves.append(sorted(sorter.get_ready()))
        sorter.done(*waves[-1])
    return waves


def development_profile(
    config: Configuration, service_names: Sequence[str] = (), engine_platform: str = ""
) -> Configuration:
    """Return the configuration of the development environment: the selected services (default: all) and dependencies.

    Images are built from their `dev_target`, for one platform, the engine's own if possible. Services with a `dev`
    table get its command, limits, egress and writable root. There are no checks and no size limits of Proxima.
    """
    names = resolve_dependencies(config.services, service_names or list(config.services))
    services = {name: _apply_dev_table(config.services[name]) for name in config.services if name in names}
    image_names = {service.image for service in services.values()}
    images = {
        name: image.model_copy(
            update={
                "target": image.dev_target or image.target,
                "platforms": [native_platform(image_platforms(config, name), engine_platform)],
            }
        )
        for name, image in config.images.items()
        if name in image_names
    }
    proxima = Proxima(platforms=config.proxima.platforms, min_engine=config.proxima.min_engine)
    return config.model_copy(update={"services": services, "images": images, "proxima": proxima, "tests": []})


def resolve_dependencies(services: Mapping[str, Service], names: Iterable[str]) -> set[str]:
    """Return the named services and all their direct and indirect dependencies."""
    resolved: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in resolved:
            resolved.add(name)
            pending += services[name].depends_on
    return resolved


def profile_hash(config: Configuration) -> str:
    """Return a hash of a profile's services, to detect an outdated development environment."""
    document = "\n".join(f"{name}={service.model_dump_json()}" for name, service in sorted(config.services.items()))
    return sha256_hex(document.encode())


def select_service(services: Mapping[str, bool], requested: str) -> str:
    """Return the requested service, else the only one with a `dev` table, else the only one.

    `services` maps each name to whether it has a `dev` table. Raises UsageError if several services are possible.
    """
    if requested:
        return select_known([requested], sorted(services), "service")[0]
    candidates = [name for name, has_dev_table in services.items() if has_dev_table] or list(services)
    if len(candidates) != 1:
        raise UsageError("No service selected", hint=f"Add --service {' or --service '.join(sorted(candidates))}")
    return candidates[0]


def _apply_dev_table(service: Service) -> Service:
    dev = service.dev
    if dev is None:
        return service
    limits = service.limits
    if dev.limits is not None:
        limits = limits.model_copy(update=dev.limits.model_dump(exclude_unset=True))
    changes: dict[str, object] = {"limits": limits, "egress": dev.egress, "read_only": dev.read_only}
    if dev.command is not None:
        # The image's entrypoint would get the command as arguments, and its health check may not fit the command
        changes |= {"command": dev.command, "entrypoint": [], "healthcheck": None}
    return service.model_copy(update=changes)
