"""What a release will do, as a value: the tag, its message, and everything that stands against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from semver import Version

from lyra_tasks.config.models import Configuration
from lyra_tasks.release.facts import ReleaseFacts
from lyra_tasks.release.next_version import Decision, ReleaseRequest
from lyra_tasks.versions.changelog import VersionChanges, render_changes
from lyra_tasks.versions.formats import MAX_IMAGE_TAG_LENGTH
from lyra_tasks.versions.version import Release


@dataclass(frozen=True)
class ReleasePlan:
    """An annotated tag to be made on `commit`.

    It is pushed to `remote`, and its changes are entered into the project's file `changelog`, unless that is empty.
    `tagged` are the version tags that were there when this was planned.
    """

    decision: Decision
    tag: str
    commit: str
    message: str
    changes: VersionChanges
    remote: str
    changelog: str
    existing_tags: frozenset[str]
    problems: tuple[str, ...]

    @property
    def version(self) -> str:
        """The version to be released."""
        return str(self.decision.version)


def plan_release(config: Configuration, facts: ReleaseFacts, request: ReleaseRequest) -> ReleasePlan:
    """Plan a release; what stands against it is in `problems`, and hinders nobody to look at the rest."""
    decision = facts.decision
    changes = VersionChanges(
        version=str(decision.version),
        date=facts.git.commit_date,
        previous=str(decision.previous.version) if decision.previous else "",
        commits=facts.commits,
        source_url=facts.source_url,
    )
    return ReleasePlan(
        decision=decision,
        tag=config.release.tag.replace("{version}", str(decision.version)),
        commit=facts.git.commit,
        message=f"{config.project.name} {decision.version}\n\n{render_changes(changes)}",
        changes=changes,
        remote=facts.remote_name if request.push else "",
        changelog=request.changelog,
        existing_tags=frozenset(release.tag for release in facts.releases),
        problems=tuple(find_release_problems(config, facts)),
    )


_MAX_SHOWN_PATHS = 5


def find_release_problems(config: Configuration, facts: ReleaseFacts) -> Iterator[str]:
    """One line for each thing that is wrong and what to do about it; none for a release that may be made."""
    yield from _check_tree(facts)
    yield from _check_branch(config, facts)
    yield from _check_commit(facts)
    yield from _check_precedence(facts)
    yield from _check_version_format(facts)
    if facts.test_problem:
        yield f"tests: {facts.test_problem}"
    if facts.tagger_problem:
        yield f"tagger: {facts.tagger_problem}"
    if facts.push_problem:
        yield f"push: {facts.push_problem}"
    if facts.changelog_problem:
        yield f"changelog: {facts.changelog_problem}"


def _check_tree(facts: ReleaseFacts) -> Iterator[str]:
    changed = facts.git.changed_paths
    if changed:
        more = f" and {len(changed) - _MAX_SHOWN_PATHS} more" if len(changed) > _MAX_SHOWN_PATHS else ""
        yield f"tree: not committed: {', '.join(changed[:_MAX_SHOWN_PATHS])}{more}; commit or ignore them"
    if facts.unfinished_operation:
        yield f"tree: in the middle of a {facts.unfinished_operation}; git {facts.unfinished_operation} --continue, or --abort"
    if facts.git.is_shallow:
        yield "tree: the clone is shallow, tags and commits may be missing; git fetch --unshallow --tags"


def _check_branch(config: Configuration, facts: ReleaseFacts) -> Iterator[str]:
    allowed = config.release.branches
    if not any(fnmatchcase(facts.git.branch, pattern) for pattern in allowed):
        where = f"on the branch {facts.git.branch}" if facts.git.branch else "on no branch (HEAD is detached)"
        yield f"branch: {where}; releases are made on {', '.join(allowed) or 'none'} (release.branches)"


def _check_commit(facts: ReleaseFacts) -> Iterator[str]:
    """A tested pre-release may become the release: the same commit, and so the same bytes."""
    tagged_versions = [release.version for release in facts.releases if release.commit == facts.git.commit]
    if not all(_is_final_of(version, facts.decision.version) for version in tagged_versions):
        yield f"commit: {facts.git.short_commit} is {' and '.join(map(str, tagged_versions))} already; commit something first"


def _is_final_of(tagged_version: Version, version: Version) -> bool:
    is_final = not version.prerelease and version.finalize_version() == tagged_version.finalize_version()
    return is_final and bool(tagged_version.prerelease)


def _check_precedence(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    line_releases = [release for release in facts.releases if release.version.to_tuple()[:2] == version.to_tuple()[:2]]
    for scope, release in (
        (f"the line {version.major}.{version.minor}", _find_not_lower(version, line_releases)),
        ("this history", _find_not_lower(version, facts.reachable_releases)),
    ):
        if release is not None:
            yield f"version: {version} is not above {release.version}, the highest of {scope}; choose a higher one"
            return


def _find_not_lower(version: Version, releases: tuple[Release, ...] | list[Release]) -> Release | None:
    highest = max(releases, key=lambda release: release.version, default=None)
    return highest if highest is not None and highest.version >= version else None


def _check_version_format(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    if len(str(version)) > MAX_IMAGE_TAG_LENGTH:
        yield f"version: {len(str(version))} characters; an image tag has at most {MAX_IMAGE_TAG_LENGTH}"
    if "dev" in (version.prerelease or "").split("."):
        yield f"version: {version} looks like a version between tags; use another word than dev"
    for release in facts.releases:
        if str(release.version) != str(version) and str(release.version).lower() == str(version).lower():
            yield f"version: {version} differs from {release.version} by upper and lower case alone; choose another"
    if facts.tag_name_problem:
        yield f"tag: {facts.tag_name_problem}; choose another version, or another release.tag"
