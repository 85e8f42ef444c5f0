"""Results of `build`, `test`, `promote` and `clean`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lyra_tasks.results.documents import JsonValue

if TYPE_CHECKING:
    from lyra_tasks.builds.show import BuiltImage
    from lyra_tasks.engine.objects.ownership import OwnedObject
    from lyra_tasks.records.cleanup import RecordedObject, UnaskedEngineRecord


@dataclass(frozen=True)
class BakeDefinition:
    """What `build --dry-run` would give to Buildx: its groups and targets by name, with declared secrets redacted."""

    group: Mapping[str, Mapping[str, JsonValue]]
    target: Mapping[str, Mapping[str, JsonValue]]

    @property
    def images(self) -> Mapping[str, BuiltImage]:
        """Return no images: a dry run builds none. It is not in the document."""
        return {}


@dataclass(frozen=True)
class BuiltImages:
    """What `build` has built, by image: `web`, or `web@linux/arm64` of several platforms."""

    images: Mapping[str, BuiltImage]


@dataclass(frozen=True)
class ServiceReservation:
    """The capacity that a service would reserve: CPU cores, and memory in bytes."""

    cpus: float
    memory: int


@dataclass(frozen=True)
class TestGroup:
    """Checks that share services, which start in `waves`; the group's name may be empty."""

    __test__ = False

    group: str
    services: Mapping[str, ServiceReservation]
    waves: tuple[tuple[str, ...], ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    checks: tuple[str, ...]


@dataclass(frozen=True)
class TestPreview:
    """What `test --dry-run` would run: batches of parallel groups, all checks, and the digest of the set to test."""

    __test__ = False

    batches: tuple[tuple[TestGroup, ...], ...]
    checks: tuple[str, ...]
    set: str


@dataclass(frozen=True)
class PromotionPreview:
    """What `promote --dry-run` would create.

    `images` are config digests by image, `test_doubles` the references of what stays behind, by service.
    """

    version: str
    directory: str
    compression: str
    images: Mapping[str, str]
    test_doubles: Mapping[str, str]


@dataclass(frozen=True)
class PushedTag:
    """A reference that `promote --to` has pushed, and its digest; `uploaded_bytes` are those of its image."""

    reference: str
    digest: str
    uploaded_bytes: int


@dataclass(frozen=True)
class CleanupPreview:
    """What `clean --dry-run` would remove, and what it would keep for which reason; sizes in bytes.

    `expired` goes by itself, beyond the limits of `[resources]`.
    """

    level: Literal["objects", "cache", "all", "gone"]
    objects: tuple[OwnedObject, ...]
    kept: Mapping[str, str]
    temporary_files: tuple[str, ...]
    prune_cache: bool
    stop_sandbox: bool
    removes_state: bool
    layers_size: int
    cache_size: int
    not_asked: tuple[UnaskedEngineRecord, ...] = ()
    expired: tuple[str, ...] = ()

    @property
    def removed(self) -> tuple[RecordedObject, ...]:
        """Return no objects: a dry run removes none. It is not in the document."""
        return ()


@dataclass(frozen=True)
class GoneCheckout:
    """A missing checkout: its objects and state directories, and why it, or its state, is perhaps better kept."""

    root: str
    unmounted_reason: str
    objects: tuple[OwnedObject, ...]
    kept: Mapping[str, str]
    stop_sandbox: bool
    states: tuple[str, ...]
    kept_reason: str


@dataclass(frozen=True)
class GoneCleanupPreview:
    """What `clean --gone` would remove; `live` names the active runs of the checkouts that are skipped."""

    checkouts: tuple[GoneCheckout, ...]
    live: Mapping[str, str]
    level: Literal["gone"] = "gone"

    @property
    def removed(self) -> tuple[RecordedObject, ...]:
        """Return no objects: a dry run removes none. It is not in the document."""
        return ()
