"""What a release was asked to be and to do, from the options of the word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from semver import Version

from lyra_tasks.errors import UsageError
from lyra_tasks.versions.changelog import Commit
from lyra_tasks.versions.version import FIRST_VERSION, Release, find_previous_release

VersionPart = Literal["major", "minor", "patch"]
BUMPS = (*get_args(VersionPart), "auto")


@dataclass(frozen=True)
class ReleaseRequest:
    """How far to go (`bump`), a pre-release of what (`pre`), or the very `version`; and what to do beside the tag.

    `push` pushes the tag; `changelog` is a file, relative to the project, that gets the changes; empty for none.
    """

    bump: str = "auto"
    pre: str = ""
    version: str = ""
    push: bool = False
    changelog: str = ""


def parse_release_request(
    root: Path, *, bump: str, pre: str, version: str, push: bool, changelog: str
) -> ReleaseRequest:
    """What the options ask for; UsageError where they make no sense."""
    if version and (bump or pre):
        raise UsageError("--version says it all; --bump and --pre do not go with it", hint="leave one of them out")
    if bump and bump not in BUMPS:
        raise UsageError(f"--bump takes {', '.join(BUMPS)}, not {bump!r}", hint="for example --bump minor")
    if version and not (version.isascii() and Version.is_valid(version)):
        raise UsageError(
            f"{version!r} is not a semantic version", hint="MAJOR.MINOR.PATCH, such as 1.4.0 or 1.4.0-rc.1, without a v"
        )
    if pre and not (pre.isascii() and Version.is_valid(f"1.0.0-{pre}.1")):
        raise UsageError(f"{pre!r} cannot be part of a version", hint="letters, digits and hyphens, such as --pre rc")
    return ReleaseRequest(
        bump or "auto", pre, version, push, _resolve_changelog_path(root, changelog) if changelog else ""
    )


def _resolve_changelog_path(root: Path, file: str) -> str:
    path = Path(os.path.normpath(root / file))
    is_inside = path.is_relative_to(root) and path.parent.resolve().is_relative_to(root.resolve())
    if not is_inside or path == root or path.is_dir():
        raise UsageError(f"--changelog {file} is not a file of the project", hint=f"a path below {root}")
    if path.is_symlink():
        raise UsageError(f"--changelog {file} is a link", hint="name the file that it leads to")
    return str(path.relative_to(root))


_INITIAL_VERSION = Version.parse(FIRST_VERSION)


@dataclass(frozen=True)
class Decision:
    """The next version, the one before it, how that came about, and the commits that decided, newest first."""

    version: Version
    previous: Release | None
    reason: str
    decisive_commits: tuple[Commit, ...] = ()


def find_last_release(reachable: Iterable[Release]) -> Release | None:
    """The highest version that is no pre-release."""
    return max(
        (release for release in reachable if not release.version.prerelease),
        key=lambda release: release.version,
        default=None,
    )


def decide_version(request: ReleaseRequest, reachable: Sequence[Release], commits: Sequence[Commit]) -> Decision:
    """Decide the next version; `since` are the commits after the last release, newest first."""
    if request.version:
        version = Version.parse(request.version)
        return Decision(version, find_previous_release(version, reachable), "as asked for")
    last_release = find_last_release(reachable)
    part, reason, decisive_commits = _choose_part(request.bump, last_release, commits)
    core = _bump(part, last_release)
    highest = max((release.version for release in reachable), default=core)
    if highest.finalize_version() > core:
        core, reason, decisive_commits = highest.finalize_version(), f"begun with {highest}", ()
    version = _next_prerelease(core, request.pre, reachable) if request.pre else core
    return Decision(version, find_previous_release(version, reachable), reason, decisive_commits)


def _choose_part(
    bump: str, last_release: Release | None, commits: Sequence[Commit]
) -> tuple[VersionPart, str, tuple[Commit, ...]]:
    if bump == "major":
        return "major", "major, as asked for", ()
    if last_release is None:
        return "minor", "the first version", ()
    if bump == "minor":
        return "minor", "minor, as asked for", ()
    if bump == "patch":
        return "patch", "patch, as asked for", ()
    breaking_commits = tuple(commit for commit in commits if commit.breaking_change)
    feature_commits = tuple(commit for commit in commits if commit.type == "feat")
    if breaking_commits and last_release.version.major:
        return "major", "major, something breaks", breaking_commits
    if breaking_commits:
        return "minor", "minor, something breaks before 1.0.0", breaking_commits
    if feature_commits:
        return "minor", "minor, there are features", feature_commits
    return "patch", "patch, no commit says that it is a feature or breaks something", ()


def _bump(part: VersionPart, last_release: Release | None) -> Version:
    if last_release is None:
        return Version(1, 0, 0) if part == "major" else _INITIAL_VERSION
    core = last_release.version.finalize_version()
    return {"major": core.bump_major, "minor": core.bump_minor, "patch": core.bump_patch}[part]()


def _next_prerelease(core: Version, token: str, reachable: Sequence[Release]) -> Version:
    """The next pre-release with this token: `1.4.0-rc.1`, after it `1.4.0-rc.2`."""
    pattern = re.compile(rf"{re.escape(token)}\.(\d+)")
    numbers = [
        int(match[1])
        for release in reachable
        if release.version.finalize_version() == core and (match := pattern.fullmatch(release.version.prerelease or ""))
    ]
    return core.replace(prerelease=f"{token}.{max(numbers, default=0) + 1}")
