"""Results of `release` and `release.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecisiveCommit:
    """A commit that decided how much the version was raised."""

    commit: str
    type: str
    subject: str


@dataclass(frozen=True)
class PlannedRelease:
    """A version and its tag, why it is the next one, and its changes as Markdown; `previous` is None for the first."""

    version: str
    tag: str
    commit: str
    previous: str | None
    reason: str
    decisive_commits: tuple[DecisiveCommit, ...]
    changelog: str


@dataclass(frozen=True)
class ReleasePreview(PlannedRelease):
    """What `release --dry-run` would tag."""

    problems: tuple[str, ...]


@dataclass(frozen=True)
class CreatedRelease(PlannedRelease):
    """What `release` has tagged; `pushed_to` is the name of a remote, or empty."""

    tag_id: str
    pushed_to: str


@dataclass(frozen=True)
class VersionDetails:
    """The version of the checkout and its reason; `pep440` is None if Python packages cannot have this version.

    A release is a clean tree whose commit has the version's tag (pre-releases included), a snapshot a dirty tree.
    """

    semver: str
    reason: str
    is_release: bool
    is_snapshot: bool
    image_tag: str
    file_name: str
    pep440: str | None
    commit: str
    shallow: bool


@dataclass(frozen=True)
class BareVersion:
    """The version that an image tag stands for."""

    semver: str


@dataclass(frozen=True)
class ReleaseEntry:
    """A tagged version, and its bundle if it was promoted: directory, size in bytes, signature and checks."""

    version: str
    tag: str
    date: str
    commit: str
    bundle: str | None
    size: int | None
    is_signed: bool | None
    passed: int | None
    failed: int | None
