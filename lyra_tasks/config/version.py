"""The version of a checkout, told by its git tags alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.config.forms import image_tag
from lyra_tasks.config.tags import DEFAULT_PATTERN

if TYPE_CHECKING:
    import semver

    from lyra_tasks.config.git import GitFacts

FIRST = "0.1.0"


@dataclass(frozen=True)
class Version:
    """A semantic version and how it came about.

    `is_release`: a clean tree exactly on a version's tag, pre-releases included. `is_snapshot`: the tree is dirty.
    `image_tag` is the version with `+`, which an image tag cannot hold, as `_`, which a version cannot hold.
    """

    semver: str
    reason: str
    is_release: bool
    is_snapshot: bool
    image_tag: str


def version_of(facts: GitFacts, tag_pattern: str = DEFAULT_PATTERN) -> Version:
    """The version of a checkout; `facts` must have been gathered with the same tag pattern.

    PreconditionError if the version is too long to be an image tag.
    """
    found = facts.version_tag(tag_pattern)
    if found is not None and found[0].commit == facts.commit and not facts.dirty:
        return _version(str(found[1]), f"on tag {found[0].name}", is_release=True)
    base = _next(found[1]) if found else f"{FIRST}-dev"
    commits = "1 commit" if facts.distance == 1 else f"{facts.distance} commits"
    reason = f"{commits} after tag {found[0].name}" if found else f"{commits}, no version tag"
    text = f"{base}.{facts.distance}+g{facts.short}"
    if facts.dirty:
        text = f"{text}.dirty.{facts.dirty_hash}"
        reason = f"{reason}, uncommitted changes"
    return _version(text, reason, is_snapshot=facts.dirty)


def _next(version: semver.Version) -> str:
    """What comes after a version, up to the number of commits: above it, and below the next one that may be tagged."""
    core = version.finalize_version()
    if version.prerelease:
        return f"{core}-{version.prerelease}.dev"
    return f"{core.bump_patch()}-dev"


def _version(text: str, reason: str, *, is_release: bool = False, is_snapshot: bool = False) -> Version:
    return Version(text, reason, is_release=is_release, is_snapshot=is_snapshot, image_tag=image_tag(text))
