"""A service as it really runs: its table in the configuration merged with the configuration of its image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.models import Command, Configuration, Limits, Proxima, Service
from lyra_tasks.config.platforms import image_platforms, native_platform
from lyra_tasks.errors import UsageError

_TMP = "/tmp"  # noqa: S108
_MIN_TMP_BYTES = 1024**2


@dataclass(frozen=True)
class EffectiveService:
    """What does not stand in either alone; sizes in bytes.

    `tmpfs` holds `/tmp`, the service's own entries, and every VOLUME of the image, as far as no volume covers them.
    """

    user: str
    tmpfs: Mapping[str, int]
    memory: int
    has_healthcheck: bool


def effective_service(service: Service, image_config: Mapping[str, Any]) -> EffectiveService:
    """Merge a service with its image; memory counts what the container may write to its tmpfs.

    `/tmp` gets what the volumes leave of `limits.disk`, and never less than 1 MiB.
    """
    covered_paths = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    remaining = service.limits.disk - sum(volume.size for volume in service.volumes.values())
    tmpfs = {**({} if _TMP in covered_paths else {_TMP: max(remaining, _MIN_TMP_BYTES)}), **service.tmpfs}
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in covered_paths:
            tmpfs.setdefault(path.rstrip("/"), service.limits.disk)
    return EffectiveService(
        user=service.user or str(image_config.get("User") or ""),
        tmpfs=tmpfs,
        memory=service.limits.memory + sum(tmpfs.values()),
        has_healthcheck=bool(image_healthcheck(image_config)) or service.healthcheck is not None,
    )


def image_healthcheck(image_config: Mapping[str, Any]) -> list[str]:
    """The image's own HEALTHCHECK test, or nothing."""
    test = (image_config.get("Healthcheck") or {}).get("Test") or []
    return [] if test[:1] == ["NONE"] else [str(argument) for argument in test]


def to_argv(command: Command) -> list[str]:
    """A command as an argument list: a list is taken as it is, a string goes to the container's shell."""
    return list(command) if isinstance(command, list) else ["/bin/sh", "-c", command]


def start_order(services: Mapping[str, Service]) -> list[list[str]]:
    """Service names in waves: each wave depends on earlier ones only. `checks.py` has refused cycles."""
    waves: list[list[str]] = []
    started: set[str] = set()
    while len(started) < len(services):
        wave = sorted(
            name for name, service in services.items() if name not in started and set(service.depends_on) <= started
        )
        if not wave:
            raise ValueError("services depend on each other in a circle")
        waves.append(wave)
        started.update(wave)
    return waves


def development_profile(
    config: Configuration, service_names: Sequence[str] = (), engine_platform: str = ""
) -> Configuration:
    """The profile of the services `chosen` (default: all) and of what they depend on, with the images they need.

    Of several platforms, an image is built for that of the `engine` that it is developed on.
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
    """`chosen` and everything that they depend on, directly or not."""
    resolved: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in resolved:
            resolved.add(name)
            pending += services[name].depends_on
    return resolved


def profile_hash(config: Configuration) -> str:
    """A hash of the services of a profile, to tell whether a lab is still what the configuration says."""
    document = "\n".join(f"{name}={service.model_dump_json()}" for name, service in sorted(config.services.items()))
    return hashlib.sha256(document.encode()).hexdigest()


def select_service(services: Mapping[str, bool], requested: str) -> str:
    """The service that a word of `dev` means: `wanted`, else the only one that is developed, else the only one.

    `services` says of each whether it is developed. UsageError if none is named and several could be meant.
    """
    if requested:
        if requested not in services:
            raise UsageError(
                f"the development lab has no service {requested!r}", hint=f"it has: {', '.join(sorted(services))}"
            )
        return requested
    candidates = [name for name, is_developed in services.items() if is_developed] or list(services)
    if len(candidates) != 1:
        raise UsageError(
            "several services could be meant", hint=f"name one: --service {' or '.join(sorted(candidates))}"
        )
    return candidates[0]


def _apply_dev_table(service: Service) -> Service:
    dev = service.dev
    if dev is None:
        return service
    limits = service.limits
    if dev.limits is not None:
        limits = Limits.model_validate(
            limits.model_dump() | {key: getattr(dev.limits, key) for key in dev.limits.model_fields_set}
        )
    changes: dict[str, object] = {"limits": limits, "egress": dev.egress, "read_only": dev.read_only}
    if dev.command is not None:
        # the image's entrypoint would get the command as arguments, and nothing is said about what it answers to
        changes |= {"command": dev.command, "entrypoint": [], "healthcheck": None}
    return service.model_copy(update=changes)
