"""Which builds the labs of a test run: one lab for each platform that the engine can run and images are there for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import Variant, variants
from lyra_tasks.errors import PreconditionError


@dataclass(frozen=True)
class Running:
    """One round of labs: by image, the build that its services run; `label` is empty for the engine's own platform."""

    platform: str
    label: str
    builds: Mapping[str, Variant]


def plan(config: Configuration, runnable: Sequence[str], engine: str) -> tuple[Running, ...]:
    """Say what is run for which platform; `runnable` are those that `engine` (a platform) can run, its own first.

    An image that is not there for the platform of a lab runs there for the first one that it can. PreconditionError
    for a service whose image cannot run at all.
    """
    by_image: dict[str, list[Variant]] = {}
    for each in variants(config):
        by_image.setdefault(each.image, []).append(each)
    used = {service.image for service in config.services.values() if service.image is not None}
    first = {name: _runs(runnable, found) for name, found in by_image.items()}
    lost = tuple(
        f"services.{name}: its image is for {' and '.join(each.platform for each in by_image[service.image])}"
        for name, service in config.services.items()
        if service.image is not None and first[service.image] is None
    )
    if lost:
        raise PreconditionError(
            f"not every service can be started: the engine runs {' and '.join(runnable) or engine}",
            hint="give the image a platform that the engine runs, test on an engine of its own, or set up emulation "
            "there (binfmt_misc)",
            details=lost,
        )
    own = {name: build or by_image[name][0] for name, build in first.items()}
    rounds = [Running(runnable[0] if runnable else engine, "", own)]
    for platform in runnable[1:]:
        builds = {name: _runs((platform,), found) or own[name] for name, found in by_image.items()}
        tried = {round.builds[name] for round in rounds for name in used}
        if any(builds[name] not in tried for name in used):
            rounds.append(Running(platform, f"@{platform.replace('/', '-')}", builds))
    return tuple(rounds)


def tried(config: Configuration, rounds: Sequence[Running]) -> frozenset[str]:
    """What the builds are called that a service runs in one of the labs."""
    used = {service.image for service in config.services.values() if service.image is not None}
    return frozenset(each.builds[name].key for each in rounds for name in used)


def _runs(platforms: Sequence[str], builds: Sequence[Variant]) -> Variant | None:
    return next((build for platform in platforms for build in builds if build.platform == platform), None)
