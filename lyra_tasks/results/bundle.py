"""Results of `verify`, `diff` and `bundle.*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lyra_tasks.bundle.format.pack import RequiredImage
    from lyra_tasks.records.evidence import CheckResult


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle or pack, and its size in bytes."""

    name: str
    size: int


BundleState = Literal["present", "missing", "damaged", "other-format"]


@dataclass(frozen=True)
class ListedBundle:
    """A bundle in the index, and the size of its directory in bytes.

    `passed` and `failed` are numbers of checks, None unless the bundle is present; one in another format was written by
    an earlier or a newer version of this program.
    """

    version: str
    created: str
    commit: str
    set_digest: str
    is_snapshot: bool
    directory: str
    state: BundleState
    size: int
    is_signed: bool
    passed: int | None
    failed: int | None

    @property
    def checks_summary(self) -> str:
        """Return how many checks passed and failed before the promotion; empty if the bundle does not say."""
        if self.passed is None:
            return ""
        return f"{self.passed} passed" + (f", {self.failed} failed" if self.failed else "")


@dataclass(frozen=True)
class BundleList:
    """What `bundle.list` shows: the bundles of a project, newest first."""

    project: str
    versions: tuple[ListedBundle, ...]


@dataclass(frozen=True)
class Verification:
    """What `verify` has found intact; `images` are config digests by image.

    `project` and `version` are None for a single archive, `since` unless it is a pack that omits the layers of this
    version, and `signer` if no trusted keys were given.
    """

    path: str
    kind: Literal["bundle", "pack", "part", "archive"]
    project: str | None
    version: str | None
    since: str | None
    files: tuple[BundleFile, ...]
    images: Mapping[str, str]
    signer: str | None


@dataclass(frozen=True)
class ChangedValue:
    """A difference; `before` is None for something new, `after` for something removed."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class BundleComparison:
    """The two versions that `diff` has compared, and the changes by section."""

    before: str
    after: str
    changes: Mapping[str, tuple[ChangedValue, ...]]


@dataclass(frozen=True)
class PlannedArchive:
    """An archive of a pack, at most `size` bytes, without the `omitted_layers`, which the `required_images` have."""

    platform: str
    file: str
    size: int
    omitted_layers: tuple[str, ...]
    required_images: tuple[RequiredImage, ...]


@dataclass(frozen=True)
class PackPreview:
    """What `bundle.pack --dry-run` would create, the space that it needs, and the space that there is."""

    directory: str
    version: str
    since: str | None
    max_part_bytes: int | None
    required_bytes: int
    free_bytes: int
    archives: tuple[PlannedArchive, ...]


@dataclass(frozen=True)
class DependentPack:
    """A pack of a newer version, for which the receiver must have the one that it was made since."""

    version: str
    directory: str


@dataclass(frozen=True)
class RemovePreview:
    """What `bundle.remove --dry-run` would remove: a directory of `size` bytes, the entry in the index, or both."""

    version: str
    is_snapshot: bool
    set_digest: str
    directory: str
    has_directory: bool
    is_listed: bool
    size: int
    packs: tuple[DependentPack, ...]


@dataclass(frozen=True)
class RemovedBundle(RemovePreview):
    """What `bundle.remove` has removed; `has_directory` and `is_listed` say what there was before."""


@dataclass(frozen=True)
class RehearsalPreview:
    """What `bundle.rehearse --dry-run` would start: engines of `suites` with `cpus` and `memory` (bytes)."""

    version: str
    older: str | None
    suites: tuple[str, ...]
    min_engine: str
    memory: int
    cpus: float
    env_variables: tuple[str, ...]


@dataclass(frozen=True)
class RehearsedStep:
    """A step of the page in a bundle or pack, whose commands have all succeeded."""

    bundle: str
    step: str
    seconds: float


@dataclass(frozen=True)
class RehearsedEngine:
    """What a rehearsal has found on an engine: its version, the steps and the checks in the order of work."""

    engine: str
    store: str
    services: tuple[str, ...]
    passed: bool
    checks: tuple[CheckResult, ...]
    steps: tuple[RehearsedStep, ...]


@dataclass(frozen=True)
class Rehearsal:
    """What `bundle.rehearse` has found; `older` is the version to upgrade from and to roll back to."""

    version: str
    older: str | None
    passed: bool
    engines: tuple[RehearsedEngine, ...]
