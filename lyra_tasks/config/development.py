"""The development profile: the same configuration as a developer's lab runs it, never as anything is tested or shipped.

Images are built from their `dev_target`; services with a `dev` table get its command, limits, way out and writable
root; what only Proxima demands of limits and sizes does not hold. Everything else is as in a test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from lyra_tasks.config.models import Configuration, Limits, Proxima, Service
from lyra_tasks.config.platforms import own_platform, platforms_of
from lyra_tasks.errors import UsageError


def development(config: Configuration, chosen: Sequence[str] = (), engine: str = "") -> Configuration:
    """The profile of the services `chosen` (default: all) and of what they depend on, with the images they need.

    Of several platforms, an image is built for that of the `engine` that it is developed on.
    """
    names = with_dependencies(config.services, chosen or list(config.services))
    services = {name: _developed(config.services[name]) for name in config.services if name in names}
    used = {service.image for service in services.values()}
    images = {
        name: image.model_copy(
            update={
                "target": image.dev_target or image.target,
                "platforms": [own_platform(platforms_of(config, name), engine)],
            }
        )
        for name, image in config.images.items()
        if name in used
    }
    proxima = Proxima(platforms=config.proxima.platforms, min_engine=config.proxima.min_engine)
    return config.model_copy(update={"services": services, "images": images, "proxima": proxima, "tests": []})


def with_dependencies(services: Mapping[str, Service], chosen: Iterable[str]) -> set[str]:
    """`chosen` and everything that they depend on, directly or not."""
    found: set[str] = set()
    pending = list(chosen)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += services[name].depends_on
    return found


def profile_hash(config: Configuration) -> str:
    """A hash of the services of a profile, to tell whether a lab is still what the configuration says."""
    document = "\n".join(f"{name}={each.model_dump_json()}" for name, each in sorted(config.services.items()))
    return hashlib.sha256(document.encode()).hexdigest()


def entered(services: Mapping[str, bool], wanted: str) -> str:
    """The service that a word of `dev` means: `wanted`, else the only one that is developed, else the only one.

    `services` says of each whether it is developed. UsageError if none is named and several could be meant.
    """
    if wanted:
        if wanted not in services:
            raise UsageError(
                f"the development lab has no service {wanted!r}", hint=f"it has: {', '.join(sorted(services))}"
            )
        return wanted
    developed = [name for name, dev in services.items() if dev] or list(services)
    if len(developed) != 1:
        raise UsageError(
            "several services could be meant", hint=f"name one: --service {' or '.join(sorted(developed))}"
        )
    return developed[0]


def _developed(service: Service) -> Service:
    dev = service.dev
    if dev is None:
        return service
    limits = service.limits
    if dev.limits is not None:
        limits = Limits.model_validate(
            limits.model_dump() | {k: getattr(dev.limits, k) for k in dev.limits.model_fields_set}
        )
    changes: dict[str, object] = {"limits": limits, "egress": dev.egress, "read_only": dev.read_only}
    if dev.command is not None:
        # the image's entrypoint would get the command as arguments, and nothing is said about what it answers to
        changes |= {"command": dev.command, "entrypoint": [], "healthcheck": None}
    return service.model_copy(update=changes)
