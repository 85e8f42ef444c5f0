"""Keys that are documented but not yet supported: using one is an error with its line, never silently ignored."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem

NOT_YET = (
    "resources.cache",
    "tests.*.group",
    "tests.*.stage",
    "tests.*.structure",
)
"""Each may only have its default; whoever builds a feature deletes its line."""


def not_yet(config: Configuration) -> Iterator[Problem]:
    """Every use of something that is not yet supported."""
    for pattern in NOT_YET:
        for location in _used(config, tuple(pattern.split(".")), ()):
            yield Problem(location, "not yet supported; remove it")
    yield from _several_platforms(config)


def _several_platforms(config: Configuration) -> Iterator[Problem]:
    if len(config.proxima.platforms) > 1:
        yield Problem(("proxima", "platforms"), "more than one platform is not yet supported; name one")
    for name, image in config.images.items():
        if image.platforms and image.platforms != config.proxima.platforms:
            yield Problem(
                ("images", name, "platforms"), "platforms other than proxima.platforms are not yet supported; remove it"
            )


def _used(value: object, pattern: tuple[str, ...], at: Location) -> Iterator[Location]:
    """Where a key matching the pattern has another value than its default."""
    key, *rest = pattern
    if key == "*":
        items: list[tuple[str | int, object]] = (
            list(value.items())
            if isinstance(value, dict)
            else list(enumerate(value))
            if isinstance(value, list)
            else []
        )
        for name, item in items:
            yield from _used(item, tuple(rest), (*at, name))
    elif rest:
        yield from _used(getattr(value, key), tuple(rest), (*at, key))
    elif isinstance(value, BaseModel):
        default = type(value).model_fields[key].get_default(call_default_factory=True)
        if getattr(value, key) != default:
            yield (*at, key)
