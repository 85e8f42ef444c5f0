"""Everything that stands against a release, found at once."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from semver import Version

from lyra_tasks.config.forms import LONGEST_IMAGE_TAG
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.releases import Release
from lyra_tasks.release.facts import ReleaseFacts

_SHOWN = 5


def problems(config: Configuration, facts: ReleaseFacts) -> Iterator[str]:
    """One line for each thing that is wrong and what to do about it; none for a release that may be made."""
    yield from _tree(facts)
    yield from _branch(config, facts)
    yield from _head(facts)
    yield from _precedence(facts)
    yield from _grammar(facts)
    if facts.untested:
        yield f"tests: {facts.untested}"
    if facts.nameless:
        yield f"tagger: {facts.nameless}"
    if facts.unpushable:
        yield f"push: {facts.unpushable}"
    if facts.misplaced:
        yield f"changelog: {facts.misplaced}"


def _tree(facts: ReleaseFacts) -> Iterator[str]:
    changed = facts.git.changed
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        yield f"tree: not committed: {', '.join(changed[:_SHOWN])}{more}; commit or ignore them"
    if facts.unfinished:
        yield f"tree: in the middle of a {facts.unfinished}; git {facts.unfinished} --continue, or --abort"
    if facts.git.shallow:
        yield "tree: the clone is shallow, tags and commits may be missing; git fetch --unshallow --tags"


def _branch(config: Configuration, facts: ReleaseFacts) -> Iterator[str]:
    allowed = config.release.branches
    if not any(fnmatchcase(facts.git.branch, pattern) for pattern in allowed):
        where = f"on the branch {facts.git.branch}" if facts.git.branch else "on no branch (HEAD is detached)"
        yield f"branch: {where}; releases are made on {', '.join(allowed) or 'none'} (release.branches)"


def _head(facts: ReleaseFacts) -> Iterator[str]:
    """A tested pre-release may become the release: the same commit, and so the same bytes."""
    there = [each.version for each in facts.releases if each.commit == facts.git.commit]
    if not all(_becomes(each, facts.decision.version) for each in there):
        yield f"commit: {facts.git.short} is {' and '.join(map(str, there))} already; commit something first"


def _becomes(tagged: Version, version: Version) -> bool:
    final = not version.prerelease and version.finalize_version() == tagged.finalize_version()
    return final and bool(tagged.prerelease)


def _precedence(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    line = [each for each in facts.releases if each.version.to_tuple()[:2] == version.to_tuple()[:2]]
    for where, found in (
        (f"the line {version.major}.{version.minor}", _not_below(version, line)),
        ("this history", _not_below(version, facts.reachable)),
    ):
        if found is not None:
            yield f"version: {version} is not above {found.version}, the highest of {where}; choose a higher one"
            return


def _not_below(version: Version, among: tuple[Release, ...] | list[Release]) -> Release | None:
    top = max(among, key=lambda each: each.version, default=None)
    return top if top is not None and top.version >= version else None


def _grammar(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    if len(str(version)) > LONGEST_IMAGE_TAG:
        yield f"version: {len(str(version))} characters; an image tag has at most {LONGEST_IMAGE_TAG}"
    if "dev" in (version.prerelease or "").split("."):
        yield f"version: {version} looks like a version between tags; use another word than dev"
    for each in facts.releases:
        if str(each.version) != str(version) and str(each.version).lower() == str(version).lower():
            yield f"version: {version} differs from {each.version} by upper and lower case alone; choose another"
    if facts.misnamed:
        yield f"tag: {facts.misnamed}; choose another version, or another release.tag"
