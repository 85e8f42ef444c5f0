"""Which version comes next: from the versions that HEAD can reach, what was asked for, and what the commits say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from semver import Version

from lyra_tasks.config.commits import Commit
from lyra_tasks.config.releases import Release, previous
from lyra_tasks.config.version import FIRST
from lyra_tasks.release.wanted import Part, Wanted

_FIRST = Version.parse(FIRST)


@dataclass(frozen=True)
class Decision:
    """The next version, the one before it, how that came about, and the commits that decided, newest first."""

    version: Version
    previous: Release | None
    reason: str
    decisive: tuple[Commit, ...] = ()


def last_release(reachable: Iterable[Release]) -> Release | None:
    """The highest version that is no pre-release."""
    return max((each for each in reachable if not each.version.prerelease), key=lambda each: each.version, default=None)


def decide(asked: Wanted, reachable: Sequence[Release], since: Sequence[Commit]) -> Decision:
    """Decide the next version; `since` are the commits after the last release, newest first."""
    if asked.version:
        version = Version.parse(asked.version)
        return Decision(version, previous(version, reachable), "as asked for")
    last = last_release(reachable)
    part, reason, decisive = _part(asked.bump, last, since)
    core = _bumped(part, last)
    newest = max((each.version for each in reachable), default=core)
    if newest.finalize_version() > core:
        core, reason, decisive = newest.finalize_version(), f"begun with {newest}", ()
    version = _pre_release(core, asked.pre, reachable) if asked.pre else core
    return Decision(version, previous(version, reachable), reason, decisive)


def _part(bump: str, last: Release | None, since: Sequence[Commit]) -> tuple[Part, str, tuple[Commit, ...]]:
    if bump == "major":
        return "major", "major, as asked for", ()
    if last is None:
        return "minor", "the first version", ()
    if bump == "minor":
        return "minor", "minor, as asked for", ()
    if bump == "patch":
        return "patch", "patch, as asked for", ()
    breaking = tuple(each for each in since if each.breaking)
    features = tuple(each for each in since if each.kind == "feat")
    if breaking and last.version.major:
        return "major", "major, something breaks", breaking
    if breaking:
        return "minor", "minor, something breaks before 1.0.0", breaking
    if features:
        return "minor", "minor, there are features", features
    return "patch", "patch, no commit says that it is a feature or breaks something", ()


def _bumped(part: Part, last: Release | None) -> Version:
    if last is None:
        return Version(1, 0, 0) if part == "major" else _FIRST
    start = last.version.finalize_version()
    return {"major": start.bump_major, "minor": start.bump_minor, "patch": start.bump_patch}[part]()


def _pre_release(core: Version, token: str, reachable: Sequence[Release]) -> Version:
    """The next pre-release with this token: `1.4.0-rc.1`, after it `1.4.0-rc.2`."""
    numbered = re.compile(rf"{re.escape(token)}\.(\d+)")
    numbers = [
        int(found[1])
        for each in reachable
        if each.version.finalize_version() == core and (found := numbered.fullmatch(each.version.prerelease or ""))
    ]
    return core.replace(prerelease=f"{token}.{max(numbers, default=0) + 1}")
