"""Plan a release: the tag, its message and the problems that prevent it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from semver import Version

from lyra_tasks import console
from lyra_tasks.config.models import Configuration
from lyra_tasks.dockerfile.context import format_names
from lyra_tasks.redaction import redact
from lyra_tasks.releases.facts import ReleaseFacts
from lyra_tasks.releases.next_version import Decision, ReleaseRequest
from lyra_tasks.rules.source import describe_uncommitted
from lyra_tasks.versions.changelog import VersionChanges, render_changes
from lyra_tasks.versions.version import MAX_IMAGE_TAG_LENGTH

_MAX_SHOWN_PATHS = 5


@dataclass(frozen=True)
class ReleasePlan:
    """An annotated tag to create on `commit`, in addition to `existing_tags`.

    The tag is pushed to `remote` and the changes are added to the file `changelog`, unless these are empty.
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
        """Return the version to release."""
        return str(self.decision.version)


def plan_release(config: Configuration, facts: ReleaseFacts, request: ReleaseRequest) -> ReleasePlan:
    """Plan a release, with its problems listed in the plan."""
    decision = facts.decision
    problems = (
        *_check_checkout(config, facts),
        *_check_precedence(facts),
        *_check_version_format(facts),
        *(f"{subject}: {problem}" for subject, problem in facts.problems.items() if problem),
    )
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
        problems=tuple(redact(problem, facts.redacted_values) for problem in problems),
    )


def _check_checkout(config: Configuration, facts: ReleaseFacts) -> Iterator[str]:
    """Check the tree, the branch, and that the commit has no version yet, except pre-releases of the same one."""
    changed = facts.git.changed_paths
    if changed:
        yield f"tree: not committed: {format_names(changed, _MAX_SHOWN_PATHS)}; commit or ignore them"
    if facts.git.uncommitted_inputs and not facts.git.accepts_uncommitted:
        yield f"tree: {describe_uncommitted(facts.git)}; commit them, exclude them in .dockerignore, or add a deviation"
    if facts.unfinished_operation:
        operation = facts.unfinished_operation
        yield f"tree: unfinished {operation}; run `git {operation} --continue` or `git {operation} --abort`"
    if facts.git.is_shallow:
        yield "tree: the clone is shallow, tags and commits may be missing; run `git fetch --unshallow --tags`"
    allowed = config.release.branches
    if not any(fnmatchcase(facts.git.branch, pattern) for pattern in allowed):
        where = f"on {console.escape(facts.git.branch)}" if facts.git.branch else "HEAD is detached"
        yield f"branch: {where}; release.branches allows {', '.join(allowed) or 'none'}"
    tagged_versions = [release.version for release in facts.releases if release.commit == facts.git.commit]
    if not all(_is_final_of(facts.decision.version, version) for version in tagged_versions):
        names = " and ".join(map(str, tagged_versions))
        yield f"commit: {facts.git.short_commit} is already tagged as {names}; commit something first"


def _is_final_of(version: Version, prerelease: Version) -> bool:
    return bool(prerelease.prerelease) and not version.prerelease and version == prerelease.finalize_version()


def _check_precedence(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    line_releases = [release for release in facts.releases if release.version.to_tuple()[:2] == version.to_tuple()[:2]]
    line = f"the line {version.major}.{version.minor}"
    for scope, releases in ((line, line_releases), ("this history", facts.reachable_releases)):
        highest = max((release.version for release in releases), default=None)
        if highest is not None and highest >= version:
            yield f"version: {version} is not higher than {highest}, the highest of {scope}; raise it"
            return


def _check_version_format(facts: ReleaseFacts) -> Iterator[str]:
    version = facts.decision.version
    if len(str(version)) > MAX_IMAGE_TAG_LENGTH:
        yield f"version: {len(str(version))} characters; image tags are limited to {MAX_IMAGE_TAG_LENGTH}"
    if "dev" in (version.prerelease or "").split("."):
        yield f"version: {version} looks like a development version; use another identifier than dev"
    for release in facts.releases:
        if str(release.version) != str(version) and str(release.version).lower() == str(version).lower():
            yield f"version: {version} differs from {release.version} only in case; choose another one"
