"""Results of `create` and `dev.*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.results.documents import JsonValue

if TYPE_CHECKING:
    from lyra_tasks.records.dev import DevService


@dataclass(frozen=True)
class CreatePreview:
    """What `create --dry-run` would build and start: images, and the configuration of each service."""

    images: tuple[str, ...]
    services: Mapping[str, Mapping[str, JsonValue]]


@dataclass(frozen=True)
class Upload:
    """The files that one sync has uploaded and deleted in a service; `size` is in bytes."""

    service: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    invalid_names: tuple[str, ...]
    size: int
    seconds: float


@dataclass(frozen=True)
class UploadSummary:
    """The number of files that `create` has uploaded and deleted in a service; `size` is in bytes."""

    service: str
    uploaded: int
    deleted: int
    invalid_names: tuple[str, ...]
    size: int
    seconds: float


@dataclass(frozen=True)
class ParityGap:
    """A difference between the development environment and Proxima, and what it can cause."""

    subject: str
    local: str
    proxima: str
    consequence: str


@dataclass(frozen=True)
class DevEnvironment:
    """The environment that `create` has started or updated, and the services that it kept, replaced and so on."""

    run: str
    kept: tuple[str, ...]
    replaced: tuple[str, ...]
    created: tuple[str, ...]
    removed: tuple[str, ...]
    services: Mapping[str, DevService]
    uploads: tuple[UploadSummary, ...]
    parity_gaps: tuple[ParityGap, ...]
    seconds: float


@dataclass(frozen=True)
class RestartedService:
    """A service that `dev.restart` has restarted, and how long that took."""

    service: str
    seconds: float


@dataclass(frozen=True)
class CopiedFiles:
    """The files that `dev.sync --back` has copied into the checkout."""

    copied: tuple[str, ...]


@dataclass(frozen=True)
class ContainerEdits:
    """Files changed, added or removed in a container since their upload."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)


@dataclass(frozen=True)
class StopPreview:
    """What `dev.stop --dry-run` would remove, and the edits that would be lost, by service."""

    services: tuple[str, ...]
    edits: Mapping[str, ContainerEdits]


@dataclass(frozen=True)
class StoppedEnvironment:
    """The run that `dev.stop` has ended, and the directory of its logs; both None if there was none."""

    stopped: str | None
    logs: str | None
