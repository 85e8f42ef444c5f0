"""The versions that a repository's tags hold, and how one version stands among the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from semver import Version

from lyra_tasks.config.git import git
from lyra_tasks.config.tags import parse_tag

_FIELDS = "%(refname:strip=2)%00%(objectname)%00%(*objectname)%00%(creatordate:iso-strict)"


@dataclass(frozen=True)
class Release:
    """A tagged version: the tag's name, the full id of its commit, and when it was tagged, as ISO 8601."""

    tag: str
    commit: str
    date: str
    version: Version


def releases(root: Path, pattern: str, *, reachable: bool = False) -> tuple[Release, ...]:
    """Every version that is tagged in the repository, highest first; with `reachable` those alone that HEAD can reach.

    A shallow clone, or one that fetches no tags, has fewer than there are.
    """
    merged = ("--merged=HEAD",) if reachable else ()
    lines = git(root, "for-each-ref", *merged, f"--format={_FIELDS}", "refs/tags").split("\n")
    found = []
    for name, plain, peeled, date in (line.split("\0") for line in lines if line):
        version = parse_tag(name, pattern)
        if version is not None:
            found.append(Release(name, peeled or plain, date, version))
    return tuple(sorted(found, key=lambda each: (each.version, each.tag), reverse=True))


def previous(version: Version, reachable: Iterable[Release]) -> Release | None:
    """What a changelog begins after: the highest version below; for a release that is no pre-release, the last such."""
    below = [
        each for each in reachable if each.version < version and (version.prerelease or not each.version.prerelease)
    ]
    return max(below, key=lambda each: each.version, default=None)


def floating(version: Version, tagged: Iterable[Version]) -> tuple[str, ...]:
    """The image tags that move to a release: `MAJOR.MINOR`, `MAJOR` and `latest`, each for the highest of its line.

    A pre-release moves none; a patch of an old line moves no more than that line's.
    """
    if version.prerelease:
        return ()
    others = [each for each in tagged if not each.prerelease]
    lines = {
        f"{version.major}.{version.minor}": [each for each in others if each.to_tuple()[:2] == version.to_tuple()[:2]],
        f"{version.major}": [each for each in others if each.major == version.major],
        "latest": others,
    }
    return tuple(name for name, line in lines.items() if all(each <= version for each in line))
