"""What a base is called: in the lock, by its table or its reference, and in the build that is made on it."""

from __future__ import annotations

from lyra_tasks.config.dockerfile import From
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import keyed


def key_of(config: Configuration, image: str, reference: str) -> str:
    """The key of a FROM: the name in `[bases]` that the image or its own reference says, or the reference itself."""
    if chosen := config.images[image].bases.get(reference):
        return chosen
    if reference in config.bases:
        return reference
    return next((name for name, base in config.bases.items() if base.image == reference), reference)


def pin_key(config: Configuration, image: str, use: From) -> str:
    """The key in the lock: that of the base, and with `@PLATFORM` behind for all platforms but Proxima's first."""
    key = key_of(config, image, use.reference)
    return key if use.platform == config.proxima.platforms[0] else keyed(key, use.platform)


def named(use: From, platform: str) -> str:
    """What a base is called in a build for `platform`: its reference, with `@PLATFORM` behind if it is for another."""
    return use.reference if use.platform == platform else keyed(use.reference, use.platform)
