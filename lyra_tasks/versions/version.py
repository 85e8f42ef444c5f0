"""The version of a checkout, computed from git tags, in all its notations, and the releases of its repository."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from semver import Version

from lyra_tasks.console import format_count
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.versions.git import DEFAULT_TAG_PATTERN, GitFacts, find_version_tag, list_tags, parse_tag

FIRST_VERSION = "0.1.0"
MAX_IMAGE_TAG_LENGTH = 128

_PEP440_PHASES = {"alpha": "a", "beta": "b", "rc": "rc"}
_PEP440_CONVERTIBLE = re.compile(
    r"(?P<core>\d+\.\d+\.\d+)"
    r"(?:-(?:(?P<phase>alpha|beta|rc)\.(?P<number>\d+)(?:\.dev\.(?P<dev_after>\d+))?|dev\.(?P<dev>\d+)))?"
    r"(?:\+(?P<build>[0-9a-z]+(?:\.[0-9a-z]+)*))?"
)


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
    version_tag = find_version_tag(facts.tags, facts.commit, tag_pattern)
    if version_tag is not None and version_tag[0].commit == facts.commit and not facts.is_dirty:
        return _make_version(str(version_tag[1]), f"on tag {version_tag[0].name}", is_release=True)
    base = _development_base(version_tag[1]) if version_tag else f"{FIRST_VERSION}-dev"
    distance = format_count(facts.distance, "commit")
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


def version_to_image_tag(version: str) -> str:
    """Return the version as an image tag, with `_` (not allowed in versions) for `+` (not allowed in tags)."""
    tag = version.replace("+", "_")
    if len(tag) > MAX_IMAGE_TAG_LENGTH:
        raise PreconditionError(
            f"Version {version} has {len(tag)} characters; image tags are limited to {MAX_IMAGE_TAG_LENGTH}",
            hint="Use a shorter pre-release in the git tag",
        )
    return tag


def version_from_image_tag(tag: str) -> str:
    """Return the version of an image tag, or raise UsageError."""
    version = tag.replace("_", "+")
    if not (tag.isascii() and "+" not in tag and Version.is_valid(version) and len(tag) <= MAX_IMAGE_TAG_LENGTH):
        raise UsageError(f"{tag!r} is not the image tag of a version", hint="For example 1.4.0 or 1.4.0-dev.2_g1a2b3c4")
    return version


def version_to_file_name(version: str) -> str:
    """Return the version for use in file names, unique also on case-insensitive file systems.

    `1.0.0-RC.1+b` becomes `1.0.0-_r_c.1__b`. A version that fits into an image tag has at most 255 characters here.
    """
    return re.sub(r"[A-Z+]", lambda match: "__" if match[0] == "+" else f"_{match[0].lower()}", version)


def version_to_pep440(version: str) -> str | None:
    """Return the version in PEP 440 notation with the same ordering, or None if there is no equivalent.

    PEP 440 orders development releases before their pre-release: `1.4.0-rc.1.dev.2` becomes `1.4.0rc2.dev2`.
    """
    match = _PEP440_CONVERTIBLE.fullmatch(version)
    if match is None:
        return None
    converted = match["core"]
    if match["dev_after"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{int(match['number']) + 1}.dev{match['dev_after']}"
    elif match["phase"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{match['number']}"
    elif match["dev"] is not None:
        converted += f".dev{match['dev']}"
    return f"{converted}+{match['build']}" if match["build"] is not None else converted
