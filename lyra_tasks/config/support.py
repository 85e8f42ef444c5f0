"""What is documented but not yet supported: using it is an error with its line, never silently ignored."""

from __future__ import annotations

from collections.abc import Iterator

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.problems import Problem


def not_yet(config: Configuration) -> Iterator[Problem]:
    """Every use of something that is not yet supported: more than one platform."""
    if len(config.proxima.platforms) > 1:
        yield Problem(("proxima", "platforms"), "more than one platform is not yet supported; name one")
    for name, image in config.images.items():
        if image.platforms and image.platforms != config.proxima.platforms:
            yield Problem(
                ("images", name, "platforms"), "platforms other than proxima.platforms are not yet supported; remove it"
            )
