"""The version of a checkout, told by its git tags alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semver import Version

from lyra_tasks.versions.formats import DEFAULT_TAG_PATTERN, parse_tag, version_to_image_tag
from lyra_tasks.versions.git import run_git

if TYPE_CHECKING:
    import semver

    from lyra_tasks.versions.git import GitFacts

FIRST_VERSION = "0.1.0"


@dataclass(frozen=True)
class CheckoutVersion:
    """A semantic version and how it came about.

    `is_release`: a clean tree exactly on a version's tag, pre-releases included. `is_snapshot`: the tree is dirty.
    `image_tag` is the version with `+`, which an image tag cannot hold, as `_`, which a version cannot hold.
    """

    semver: str
    reason: str
    is_release: bool
    is_snapshot: bool
    image_tag: str


def compute_version(facts: GitFacts, tag_pattern: str = DEFAULT_TAG_PATTERN) -> CheckoutVersion:
    """The version of a checkout; `facts` must have been gathered with the same tag pattern.

    PreconditionError if the version is too long to be an image tag.
    """
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


def _development_base(version: semver.Version) -> str:
    """What comes after a version, up to the number of commits: above it, and below the next one that may be tagged."""
    core = version.finalize_version()
    if version.prerelease:
        return f"{core}-{version.prerelease}.dev"
    return f"{core.bump_patch()}-dev"


def _make_version(version: str, reason: str, *, is_release: bool = False, is_snapshot: bool = False) -> CheckoutVersion:
    return CheckoutVersion(
        version, reason, is_release=is_release, is_snapshot=is_snapshot, image_tag=version_to_image_tag(version)
    )


_REF_FORMAT = "%(refname:strip=2)%00%(objectname)%00%(*objectname)%00%(creatordate:iso-strict)"


@dataclass(frozen=True)
class Release:
    """A tagged version: the tag's name, the full id of its commit, and when it was tagged, as ISO 8601."""

    tag: str
    commit: str
    date: str
    version: Version


def list_releases(root: Path, pattern: str, *, reachable: bool = False) -> tuple[Release, ...]:
    """Every version that is tagged in the repository, highest first; with `reachable` those alone that HEAD can reach.

    A shallow clone, or one that fetches no tags, has fewer than there are.
    """
    options = ("--merged=HEAD",) if reachable else ()
    lines = run_git(root, "for-each-ref", *options, f"--format={_REF_FORMAT}", "refs/tags").split("\n")
    tagged_releases = []
    for name, object_id, commit_id, date in (line.split("\0") for line in lines if line):
        version = parse_tag(name, pattern)
        if version is not None:
            tagged_releases.append(Release(name, commit_id or object_id, date, version))
    return tuple(sorted(tagged_releases, key=lambda release: (release.version, release.tag), reverse=True))


def find_previous_release(version: Version, reachable: Iterable[Release]) -> Release | None:
    """What a changelog begins after: the highest version below; for a release that is no pre-release, the last such."""
    candidates = [
        release
        for release in reachable
        if release.version < version and (version.prerelease or not release.version.prerelease)
    ]
    return max(candidates, key=lambda release: release.version, default=None)


def list_floating_tags(version: Version, tagged_versions: Iterable[Version]) -> tuple[str, ...]:
    """The image tags that move to a release: `MAJOR.MINOR`, `MAJOR` and `latest`, each for the highest of its line.

    A pre-release moves none; a patch of an old line moves no more than that line's.
    """
    if version.prerelease:
        return ()
    final_versions = [tagged_version for tagged_version in tagged_versions if not tagged_version.prerelease]
    versions_by_tag = {
        f"{version.major}.{version.minor}": [
            tagged_version
            for tagged_version in final_versions
            if tagged_version.to_tuple()[:2] == version.to_tuple()[:2]
        ],
        f"{version.major}": [
            tagged_version for tagged_version in final_versions if tagged_version.major == version.major
        ],
        "latest": final_versions,
    }
    return tuple(
        tag
        for tag, line_versions in versions_by_tag.items()
        if all(tagged_version <= version for tagged_version in line_versions)
    )
