"""Groups of checks: each is made in its own order in a lab of its own, several at a time where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.config.platforms import Variant, list_variants
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.plan import LabPlan


@dataclass(frozen=True)
class PlannedGroup:
    """The checks of one group and their lab; `name` is empty for those that name no group.

    A lab of another platform than the engine's own makes them again: the name of its groups ends with `@linux-arm64` or
    the like, which is their `label`. `images` are the ids of what is checked there, by image.
    """

    name: str
    lab: LabPlan
    tests: tuple[Test, ...]
    platform: str = ""
    label: str = ""
    images: Mapping[str, str] = field(default_factory=dict)


def group_tests(tests: Iterable[Test]) -> dict[str, tuple[Test, ...]]:
    """The checks by group, both in the order of the file."""
    groups: dict[str, tuple[Test, ...]] = {}
    for test in tests:
        groups[test.group] = (*groups.get(test.group, ()), test)
    return groups


def batch_parallel(groups: Sequence[PlannedGroup], cpus: float, memory: int) -> tuple[tuple[PlannedGroup, ...], ...]:
    """The groups in rounds: those of one run at the same time, within `cpus` and `memory` (bytes).

    The order of the file is kept. A lab that does not fit at all has a round to itself, and is refused when it begins.
    """
    batches: list[tuple[PlannedGroup, ...]] = []
    for group in groups:
        batch = (*batches[-1], group) if batches else (group,)
        fits = (
            sum(member.lab.cpus for member in batch) <= cpus + 1e-9
            and sum(member.lab.memory for member in batch) <= memory
        )
        if batches and fits:
            batches[-1] = batch
        else:
            batches.append((group,))
    return tuple(batches)


def qualified_name(group: str, service: str) -> str:
    """What a service is called in results: its name, or GROUP/NAME."""
    return f"{group}/{service}" if group else service


@dataclass(frozen=True)
class PlatformRun:
    """One round of labs: by image, the build that its services run; `label` is empty for the engine's own platform."""

    platform: str
    label: str
    builds: Mapping[str, Variant]


def plan_platform_runs(config: Configuration, runnable: Sequence[str], engine: str) -> tuple[PlatformRun, ...]:
    """Say what is run for which platform; `runnable` are those that `engine` (a platform) can run, its own first.

    An image that is not there for the platform of a lab runs there for the first one that it can. PreconditionError
    for a service whose image cannot run at all.
    """
    by_image: dict[str, list[Variant]] = {}
    for variant in list_variants(config):
        by_image.setdefault(variant.image, []).append(variant)
    used = {service.image for service in config.services.values() if service.image is not None}
    preferred = {name: _runnable_variant(runnable, builds) for name, builds in by_image.items()}
    unrunnable = tuple(
        f"services.{name}: its image is for {' and '.join(each.platform for each in by_image[service.image])}"
        for name, service in config.services.items()
        if service.image is not None and preferred[service.image] is None
    )
    if unrunnable:
        raise PreconditionError(
            f"not every service can be started: the engine runs {' and '.join(runnable) or engine}",
            hint="give the image a platform that the engine runs, test on an engine of its own, or set up emulation "
            "there (binfmt_misc)",
            details=unrunnable,
        )
    default_builds = {name: build or by_image[name][0] for name, build in preferred.items()}
    platform_runs = [PlatformRun(runnable[0] if runnable else engine, "", default_builds)]
    for platform in runnable[1:]:
        builds = {
            name: _runnable_variant((platform,), candidates) or default_builds[name]
            for name, candidates in by_image.items()
        }
        covered = {platform_run.builds[name] for platform_run in platform_runs for name in used}
        if any(builds[name] not in covered for name in used):
            platform_runs.append(PlatformRun(platform, f"@{platform.replace('/', '-')}", builds))
    return tuple(platform_runs)


def collect_tested_builds(config: Configuration, platform_runs: Sequence[PlatformRun]) -> frozenset[str]:
    """What the builds are called that a service runs in one of the labs."""
    used = {service.image for service in config.services.values() if service.image is not None}
    return frozenset(platform_run.builds[name].key for platform_run in platform_runs for name in used)


def _runnable_variant(platforms: Sequence[str], builds: Sequence[Variant]) -> Variant | None:
    return next((build for platform in platforms for build in builds if build.platform == platform), None)
