"""The version of a checkout, computed from git tags, and the releases of its repository."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from semver import Version

from lyra_tasks.versions.formats import DEFAULT_TAG_PATTERN, parse_tag, version_to_image_tag
from lyra_tasks.versions.git import GitFacts, list_tags

FIRST_VERSION = "0.1.0"


@dataclass(frozen=True)
class CheckoutVersion:
    """A semantic version and the reason for it.

    A release is a clean tree whose commit has the version's tag (pre-releases included), a snapshot a dirty tree.
    """

    semver: str
    reason: str
    is_release: bool
    is_snapshot: bool
    image_tag: str


def compute_version(facts: GitFacts, tag_pattern: str = DEFAULT_TAG_PATTERN) -> CheckoutVersion:
    """Compute the version of a checkout; `facts` must have been collected with the same tag pattern."""
    version_tag = facts.find_version_tag(tag_pattern)
    if version_tag is not None and version_tag[0].commit == facts.commit and not facts.is_dirty:
        return _make_version(str(version_tag[1]), f"on tag {version_tag[0].name}", is_release=True)
    base = _development_base(version_tag[1]) if version_tag else f"{FIRST_VERSION}-dev"
    distance = "1 commit" if facts.distance == 1 else f"{facts.distance} commits"
    reason = f"{distance} after tag {version_tag[0].name}" if version_tag else f"{distance}, no version tag"
    version = f"{base}.{facts.distance}+g{facts.short_commit}"
    if facts.is_dirty:
        version = f"{version}.dirty.{facts.dirty_hash}"
        reason = f"{reason}, uncommitted changes"
    return _make_version(version, reason, is_snapshot=facts.is_dirty)


def _development_base(version: Version) -> str:
    """Return the prefix of development versions after `version`, ordered before any later release."""
    core = version.finalize_version()
    if version.prerelease:
        return f"{core}-{version.prerelease}.dev"
    return f"{core.bump_patch()}-dev"


def _make_version(version: str, reason: str, *, is_release: bool = False, is_snapshot: bool = False) -> CheckoutVersion:
    return CheckoutVersion(
        version, reason, is_release=is_release, is_snapshot=is_snapshot, image_tag=version_to_image_tag(version)
    )


@dataclass(frozen=True)
class Release:
    """A tagged version, with the full id of its commit and the date of the tag as ISO 8601."""

    tag: str
    commit: str
    date: str
    version: Version


def list_releases(root: Path, pattern: str, *, reachable: bool = False) -> tuple[Release, ...]:
    """Return the tagged versions of the repository, highest first; with `reachable` only those reachable from HEAD."""
    releases = [
        Release(tag.name, tag.commit, tag.date, version)
        for tag in list_tags(root, reachable=reachable)
        if (version := parse_tag(tag.name, pattern)) is not None
    ]
    return tuple(sorted(releases, key=lambda release: (release.version, release.tag), reverse=True))


def find_previous_release(version: Version, reachable: Iterable[Release]) -> Release | None:
    """Return the highest lower version; pre-releases count only if `version` is one."""
    candidates = [
        release
        for release in reachable
        if release.version < version and (version.prerelease or not release.version.prerelease)
    ]
    return max(candidates, key=lambda release: release.version, default=None)


def list_floating_tags(version: Version, tagged_versions: Iterable[Version]) -> tuple[str, ...]:
    """Return the floating image tags that move to `version`: `MAJOR.MINOR`, `MAJOR` and `latest`.

    Each belongs to the highest version of its line; pre-releases move none.
    """
    if version.prerelease:
        return ()
    finals = [candidate for candidate in tagged_versions if not candidate.prerelease]
    line_by_tag = {
        f"{version.major}.{version.minor}": [
            final for final in finals if final.to_tuple()[:2] == version.to_tuple()[:2]
        ],
        f"{version.major}": [final for final in finals if final.major == version.major],
        "latest": finals,
    }
    return tuple(tag for tag, line in line_by_tag.items() if version >= max(line, default=version))
