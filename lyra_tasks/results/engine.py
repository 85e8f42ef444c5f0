"""Results of `engine.*` and `bases.*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EngineProperties:
    """An engine: `memory` is in bytes, `store` is `classic` or `containerd`.

    `sandboxed` is whether it is the private engine.
    """

    id: str
    version: str
    api: tuple[int, ...]
    store: str
    cpus: int
    memory: int
    platform: str
    sandboxed: bool


@dataclass(frozen=True)
class EngineStatus(EngineProperties):
    """The engine that is used; published ports are reached at `host_address`."""

    host_address: str


@dataclass(frozen=True)
class NoEngine:
    """No engine runs; the document is an empty object."""


@dataclass(frozen=True)
class EngineStartPreview:
    """The Debian or Ubuntu release whose packages `engine.up --dry-run` would start an engine from."""

    suite: str


@dataclass(frozen=True)
class StartedEngine:
    """The private engine: the address of published ports, and the variables for the docker command."""

    address: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class EngineStopPreview:
    """Whether there is a private engine that `engine.down --dry-run` would stop."""

    is_running: bool


@dataclass(frozen=True)
class StoppedEngine:
    """Whether there was a private engine to stop."""

    was_running: bool


@dataclass(frozen=True)
class LockedImageEntry:
    """The source of a base image or third-party image, the digest that it is locked to, and where it is named.

    `source` and `digest` are empty for an image that is not locked yet, and `used_by` for one that nothing uses.
    """

    source: str
    digest: str
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class LockedImages:
    """The content of the lock file, by its keys."""

    images: Mapping[str, LockedImageEntry]
