"""Decide the next version from the options of `release`, the tagged versions and the commits."""

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
    """The options of `release`; `changelog` is a path relative to the project, or empty."""

    bump: str = "auto"
    pre: str = ""
    version: str = ""
    push: bool = False
    changelog: str = ""


def parse_release_request(
    root: Path, *, bump: str, pre: str, version: str, push: bool, changelog: str
) -> ReleaseRequest:
    """Return the options of `release`; raise UsageError if one is invalid, or if they conflict."""
    if version and (bump or pre):
        raise UsageError("--version cannot be combined with --bump or --pre", hint="Use one of them")
    if bump and bump not in BUMPS:
        raise UsageError(f"Unknown --bump {bump!r}", hint=f"Choose one of: {', '.join(BUMPS)}")
    if version and not (version.isascii() and Version.is_valid(version)):
        raise UsageError(
            f"{version!r} is not a semantic version",
            hint="Use MAJOR.MINOR.PATCH without a v, for example 1.4.0 or 1.4.0-rc.1",
        )
    if pre and not (pre.isascii() and Version.is_valid(f"1.0.0-{pre}.1")):
        raise UsageError(f"Invalid pre-release {pre!r}", hint="Use letters, digits and hyphens, for example --pre rc")
    changelog_path = _resolve_changelog_path(root, changelog) if changelog else ""
    return ReleaseRequest(bump or "auto", pre, version, push, changelog_path)


def _resolve_changelog_path(root: Path, file: str) -> str:
    path = Path(os.path.normpath(root / file))
    is_inside = path.is_relative_to(root) and path.parent.resolve().is_relative_to(root.resolve())
    if not is_inside or path == root or path.is_dir():
        raise UsageError(f"--changelog {file} is not a file of the project", hint=f"Use a path below {root}")
    if path.is_symlink():
        raise UsageError(f"--changelog {file} is a symbolic link", hint="Use the path of its target")
    return str(path.relative_to(root))


@dataclass(frozen=True)
class Decision:
    """The next version, the previous one, and the reason with the commits that decided, newest first."""

    version: Version
    previous: Release | None
    reason: str
    decisive_commits: tuple[Commit, ...] = ()


def find_last_release(reachable: Iterable[Release]) -> Release | None:
    """Return the highest version that is not a pre-release."""
    return max(
        (release for release in reachable if not release.version.prerelease),
        key=lambda release: release.version,
        default=None,
    )


def decide_version(request: ReleaseRequest, reachable: Sequence[Release], commits: Sequence[Commit]) -> Decision:
    """Decide the next version; `commits` are those since the last release, newest first."""
    if request.version:
        version = Version.parse(request.version)
        return Decision(version, find_previous_release(version, reachable), "as requested")
    last_release = find_last_release(reachable)
    part, reason, decisive_commits = _choose_part(request.bump, last_release, commits)
    core = _bump(part, last_release)
    highest = max((release.version for release in reachable), default=core)
    if highest.finalize_version() > core:
        core, reason, decisive_commits = highest.finalize_version(), f"continues {highest}", ()
    version = _next_prerelease(core, request.pre, reachable) if request.pre else core
    return Decision(version, find_previous_release(version, reachable), reason, decisive_commits)


def _choose_part(
    bump: str, last_release: Release | None, commits: Sequence[Commit]
) -> tuple[VersionPart, str, tuple[Commit, ...]]:
    for part in get_args(VersionPart):
        if bump == part and (last_release is not None or part == "major"):
            return part, f"{part}, as requested", ()
    if last_release is None:
        return "minor", "first version", ()
    breaking_commits = tuple(commit for commit in commits if commit.breaking_change)
    feature_commits = tuple(commit for commit in commits if commit.type == "feat")
    if breaking_commits and last_release.version.major:
        return "major", "major, breaking changes", breaking_commits
    if breaking_commits:
        return "minor", "minor, breaking changes before 1.0.0", breaking_commits
    if feature_commits:
        return "minor", "minor, new features", feature_commits
    return "patch", "patch, no features or breaking changes", ()


def _bump(part: VersionPart, last_release: Release | None) -> Version:
    if last_release is None:
        return Version(1, 0, 0) if part == "major" else Version.parse(FIRST_VERSION)
    core = last_release.version.finalize_version()
    return {"major": core.bump_major, "minor": core.bump_minor, "patch": core.bump_patch}[part]()


def _next_prerelease(core: Version, token: str, reachable: Sequence[Release]) -> Version:
    """Return the next pre-release of `core` with this token: `1.4.0-rc.1`, then `1.4.0-rc.2`."""
    pattern = re.compile(rf"{re.escape(token)}\.(\d+)")
    numbers = [
        int(match[1])
        for release in reachable
        if release.version.finalize_version() == core and (match := pattern.fullmatch(release.version.prerelease or ""))
    ]
    return core.replace(prerelease=f"{token}.{max(numbers, default=0) + 1}")
