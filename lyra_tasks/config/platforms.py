"""For which platforms images are built, and what a build of an image for one of them is called.

An image that is for one platform is called by its name alone, as everything about it is. One that is for several is
called `web@linux/arm64` for each of them: in records, sets, scopes of rules and the lock.
"""

from __future__ import annotations

import platform as machine
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lyra_tasks.config.models import Configuration

_PLACEHOLDER = "{platform}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}


@dataclass(frozen=True)
class Variant:
    """An image for one platform; `key` is what it is called."""

    image: str
    platform: str
    key: str


def image_platforms(config: Configuration, image: str) -> tuple[str, ...]:
    """The platforms of an image, in the order of its table."""
    return tuple(config.images[image].platforms or config.proxima.platforms)


def list_variants(config: Configuration, images: Iterable[str] | None = None) -> tuple[Variant, ...]:
    """The builds of `images` (default: all): each image for each of its platforms."""
    image_names = config.images if images is None else images
    builds = [(image, platform) for image in image_names for platform in image_platforms(config, image)]
    return tuple(Variant(*build, key) for build, key in zip(builds, variant_keys(builds), strict=True))


def variants_by_key(config: Configuration) -> dict[str, Variant]:
    """Every build of the project by what it is called."""
    return {variant.key: variant for variant in list_variants(config)}


def variant_keys(builds: Sequence[tuple[str, str]]) -> list[str]:
    """What each of `builds`, given as image and platform, is called beside the others."""
    counts = Counter(image for image, _ in builds)
    return [image if counts[image] == 1 else variant_key(image, platform) for image, platform in builds]


def variant_key(name: str, platform: str) -> str:
    """What stands for one of several platforms of a thing: `web@linux/arm64`."""
    return f"{name}@{platform}"


def image_from_key(key: str) -> str:
    """The image's name in what one of its builds is called."""
    return key.partition("@")[0]


def platform_slug(platform: str) -> str:
    """A platform as part of a name: `linux-arm64`."""
    return platform.replace("/", "-")


def expand_platform(text: str, platform: str) -> str:
    """What the configuration says once for all platforms, for this one: `{platform}` becomes `linux-arm64`."""
    return text.replace(_PLACEHOLDER, platform_slug(platform))


def is_native_platform(platform: str, engine_platform: str) -> bool:
    """Whether `platform` is the engine's own, of whatever variant."""
    return platform == engine_platform or platform.startswith(f"{engine_platform}/")


def native_platform(platforms: Sequence[str], engine_platform: str) -> str:
    """The one of `platforms` that is the engine's own; else the first."""
    return next((platform for platform in platforms if is_native_platform(platform, engine_platform)), platforms[0])


def host_platform() -> str:
    """The platform of the machine that this runs on, as images call it."""
    return f"linux/{docker_architecture(machine.machine())}"


def docker_architecture(machine_name: str) -> str:
    """The architecture of a machine as images call it, where its kernel calls it `kernel`: `amd64` for `x86_64`."""
    return _ARCHITECTURES.get(machine_name, machine_name)


def platform_build_args(build: str, target: str) -> dict[str, str]:
    """The arguments that BuildKit gives a value to without being asked, of a build on `build` for `target`."""
    return {**_platform_args("BUILD", build), **_platform_args("TARGET", target)}


def _platform_args(prefix: str, platform: str) -> Mapping[str, str]:
    system, architecture, variant = (*platform.split("/"), "")[:3]
    values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {f"{prefix}{part}": value for part, value in values.items()}
