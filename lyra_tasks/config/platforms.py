"""Platforms of images, and the variants of each image.

The key of a variant is the image's name, or `web@linux/arm64` if the image has several platforms. It is used in
records, evidence, scopes of rules and the lock file. A third-party image has the name of its service.
"""

from __future__ import annotations

import platform as machine
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lyra_tasks.config.models import Configuration

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}


@dataclass(frozen=True)
class Variant:
    """An image for one platform."""

    image: str
    platform: str
    key: str


def image_platforms(config: Configuration, image: str) -> tuple[str, ...]:
    """Return the platforms of an own or third-party image, in the order of the configuration."""
    if image in config.images:
        return tuple(config.images[image].platforms or config.proxima.platforms)
    platform = config.services[image].platform
    return (platform,) if platform is not None else tuple(config.proxima.platforms)


def list_variants(config: Configuration, images: Iterable[str] | None = None) -> tuple[Variant, ...]:
    """Return the variants of the images; by default of all, own ones first."""
    image_names = [*config.images, *config.third_party_images] if images is None else images
    builds = [(image, platform) for image in image_names for platform in image_platforms(config, image)]
    return tuple(Variant(*build, key) for build, key in zip(builds, variant_keys(builds), strict=True))


def list_promoted_variants(config: Configuration) -> tuple[Variant, ...]:
    """Return the variants of the images that a bundle has."""
    names = {config.image_name(name) for name, service in config.services.items() if service.is_promoted}
    return list_variants(config, sorted(names))


def variants_by_key(config: Configuration) -> dict[str, Variant]:
    """Return all variants of the project by their key."""
    return {variant.key: variant for variant in list_variants(config)}


def variant_keys(builds: Sequence[tuple[str, str]]) -> list[str]:
    """Return the keys of the builds, given as image and platform."""
    counts = Counter(image for image, _ in builds)
    return [image if counts[image] == 1 else variant_key(image, platform) for image, platform in builds]


def variant_key(name: str, platform: str) -> str:
    """Return the key of one of several platforms of an image or base: `web@linux/arm64`."""
    return f"{name}@{platform}"


def image_from_key(key: str) -> str:
    """Return the name of the image in the key of a variant."""
    return key.partition("@")[0]


def platform_slug(platform: str) -> str:
    """Return a platform as part of a file name or target: `linux-arm64`."""
    return platform.replace("/", "-")


def expand_platform(text: str, platform: str) -> str:
    """Replace the placeholder `{platform}` in a configured value, for example by `linux-arm64`."""
    return text.replace("{platform}", platform_slug(platform))


def is_native_platform(platform: str, engine_platform: str) -> bool:
    """Return whether the engine runs the platform, or a variant of it, without emulation."""
    return platform == engine_platform or platform.startswith(f"{engine_platform}/")


def native_platform(platforms: Sequence[str], engine_platform: str) -> str:
    """Return the platform that the engine runs without emulation, else the first."""
    return next((platform for platform in platforms if is_native_platform(platform, engine_platform)), platforms[0])


def host_platform() -> str:
    """Return the platform of this machine in Docker's notation."""
    return f"linux/{docker_architecture(machine.machine())}"


def docker_architecture(machine_name: str) -> str:
    """Return Docker's name of a kernel's machine name: `amd64` for `x86_64`."""
    return _ARCHITECTURES.get(machine_name, machine_name)


def platform_build_args(build: str, target: str) -> dict[str, str]:
    """Return BuildKit's automatic platform arguments of a build on `build` for `target`."""
    arguments: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        system, architecture, variant = (*platform.split("/"), "")[:3]
        values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
        arguments |= {f"{prefix}{part}": value for part, value in values.items()}
    return arguments
