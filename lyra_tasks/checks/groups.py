"""Plan groups of checks: which are run together, and for which platforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.config.platforms import Variant, list_variants
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.plan import LabPlan

if TYPE_CHECKING:
    from lyra_tasks.checks.cached_results import CachedCheck, CachedGroup


@dataclass(frozen=True)
class PlannedGroup:
    """A group of checks and its lab; `name` is empty for checks without a group.

    For a platform other than the engine's own, the names of the groups end with `label`, such as `@linux-arm64`.
    `images` maps the names of images to the ids of what is checked. Results of earlier runs are used again for
    `cached_checks`, by name, and with `cached_group` for all checks of services.
    """

    name: str
    lab: LabPlan
    tests: tuple[Test, ...]
    platform: str = ""
    label: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    cached_checks: Mapping[str, CachedCheck] = field(default_factory=dict)
    cached_group: CachedGroup | None = None

    @property
    def is_cached(self) -> bool:
        """Whether nothing has to be run."""
        return all(map(self.is_cached_check, self.tests))

    def is_cached_check(self, test: Test) -> bool:
        """Return whether a check of the group is not run, since its result is that of an earlier run."""
        return test.name in self.cached_checks if test.is_image_check else self.cached_group is not None


def group_tests(tests: Iterable[Test]) -> dict[str, tuple[Test, ...]]:
    """Return the checks by group, both in the order of the file."""
    groups: dict[str, tuple[Test, ...]] = {}
    for test in tests:
        groups[test.group] = (*groups.get(test.group, ()), test)
    return groups


def batch_parallel(groups: Sequence[PlannedGroup], cpus: float, memory: int) -> tuple[tuple[PlannedGroup, ...], ...]:
    """Divide groups into batches that run in parallel within `cpus` and `memory` (bytes), in the order of the file.

    A lab that does not fit at all gets its own batch, and is refused when that starts.
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
    """Return the name of a service in results: NAME or GROUP/NAME."""
    return f"{group}/{service}" if group else service


@dataclass(frozen=True)
class PlatformRun:
    """The labs of one platform, with the build of each image; `label` is empty for the engine's own platform."""

    platform: str
    label: str
    builds: Mapping[str, Variant]


def plan_platform_runs(config: Configuration, runnable: Sequence[str], engine: str) -> tuple[PlatformRun, ...]:
    """Plan which builds run on which platform; `runnable` lists the platforms of the engine, its own (`engine`) first.

    An image that is not built for a platform runs there as its first runnable build. Raises PreconditionError if the
    image of a service cannot run at all.
    """
    by_image: dict[str, list[Variant]] = {}
    for variant in list_variants(config):
        by_image.setdefault(variant.image, []).append(variant)
    used = {config.image_name(name) for name in config.services}
    preferred = {name: _runnable_variant(runnable, builds) for name, builds in by_image.items()}
    unrunnable = tuple(
        f"services.{name}: its image is for {' and '.join(build.platform for build in by_image[image])}"
        for name in config.services
        if preferred[image := config.image_name(name)] is None
    )
    if unrunnable:
        raise PreconditionError(
            f"Cannot start all services: the engine runs {' and '.join(runnable) or engine}",
            hint="Build the images for a platform of the engine, use another engine, or install emulation there "
            "(binfmt_misc)",
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
    """Return the keys of the builds that a service runs in one of the labs."""
    used = {config.image_name(name) for name in config.services}
    return frozenset(platform_run.builds[name].key for platform_run in platform_runs for name in used)


def _runnable_variant(platforms: Sequence[str], builds: Sequence[Variant]) -> Variant | None:
    return next((build for platform in platforms for build in builds if build.platform == platform), None)
