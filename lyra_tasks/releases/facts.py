"""Collect the facts for a release; problems are returned instead of raised, so that all are reported at once."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.dockerfile.input_hashes import dockerfile_path, read_ignore_patterns
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.releases.next_version import Decision, ReleaseRequest, decide_version, find_last_release
from lyra_tasks.rules.deviations import reassess_results
from lyra_tasks.rules.freshness import require_fresh_tests, require_passed_evidence
from lyra_tasks.rules.secrets import redacted_values
from lyra_tasks.versions.changelog import Commit, list_commits_since
from lyra_tasks.versions.git import GitFacts, clean_remote_url, find_default_remote, run_git
from lyra_tasks.versions.version import Release, list_releases

_OPERATION_FILES = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


@dataclass(frozen=True)
class ReleaseFacts:
    """The state of a checkout before a release.

    `releases` are all tagged versions, highest first, `reachable_releases` those reachable from HEAD, `commits` those
    since the previous version. `unfinished_operation` is a git operation in progress, such as `merge`, or empty.
    `problems` has a subject and a text for whatever prevents the release; the text is empty if all is well.
    `redacted_values` must not be shown, not even as the name of a file.
    """

    git: GitFacts
    releases: tuple[Release, ...]
    reachable_releases: tuple[Release, ...]
    decision: Decision
    commits: tuple[Commit, ...]
    source_url: str
    remote_name: str
    unfinished_operation: str
    problems: Mapping[str, str]
    redacted_values: tuple[str, ...] = ()


def collect_release_facts(work: Workspace, request: ReleaseRequest) -> ReleaseFacts:
    """Collect the facts of a checkout; needs the engine if `release.require_tests` is set, except in a dry run."""
    root, release = work.root, work.config.release
    reachable = list_releases(root, release.tag, reachable=True)
    last_release = find_last_release(reachable)
    new_commits = list_commits_since(root, last_release.tag if last_release else "")
    decision = decide_version(request, reachable, new_commits)
    previous = decision.previous
    tag = release.tag.replace("{version}", str(decision.version))
    remote = find_default_remote(root)
    return ReleaseFacts(
        git=work.git,
        releases=list_releases(root, release.tag),
        reachable_releases=reachable,
        decision=decision,
        commits=new_commits if previous == last_release else list_commits_since(root, previous.tag if previous else ""),
        source_url=work.config.project.source or work.git.remote_url,
        remote_name=remote,
        unfinished_operation=_find_unfinished_operation(root),
        problems={
            "tag": _check_tag_name(root, tag),
            "tests": _check_tests(work) if release.require_tests else "",
            "tagger": _git_error_message(root, "var", "GIT_COMMITTER_IDENT"),
            "push": _check_push(root, remote, tag) if request.push else "",
            "upstream": _check_upstream(root, work.git.branch, remote) if request.push else "",
            "changelog": _check_changelog(work, request.changelog) if request.changelog else "",
        },
        redacted_values=redacted_values(work.config, work.root),
    )


def _find_unfinished_operation(root: Path) -> str:
    """Return the git operation in progress, which a clean tree does not rule out."""
    git_directory = Path(run_git(root, "rev-parse", "--absolute-git-dir").removesuffix("\n"))
    return next((operation for name, operation in _OPERATION_FILES.items() if (git_directory / name).exists()), "")


def _check_tests(work: Workspace) -> str:
    try:
        evidence = require_passed_evidence(work)
        reassess_results(work.config, evidence.rules, datetime.date.today()).raise_if_failed()
        require_fresh_tests(work, evidence)
    except PreconditionError as error:
        return f"{error.message}. {error.hint}"
    except CheckFailedError as error:
        return f"{'; '.join((error.message, *error.details))}. {error.hint}"
    return ""


def _check_tag_name(root: Path, tag: str) -> str:
    is_invalid = _git_error_message(root, "check-ref-format", f"refs/tags/{tag}")
    return f"invalid tag name {tag}; choose another version or change release.tag" if is_invalid else ""


def _check_push(root: Path, remote: str, tag: str) -> str:
    if not remote:
        return "no remote configured"
    try:
        remote_tag = run_git(root, "ls-remote", "--tags", remote, f"refs/tags/{tag}")
    except PreconditionError as error:
        return "; ".join((f"cannot query the remote {remote}", *error.details[:1]))
    return f"the remote {remote} already has the tag {tag}" if remote_tag else ""


def _check_upstream(root: Path, branch: str, push_remote: str) -> str:
    """Return a problem if the branch, as its remote has it now, contains commits that HEAD lacks.

    The tag would be pushed, but the branch could not. Nothing is fetched.
    """
    fields = "%(upstream:remotename)%00%(upstream:remoteref)"
    output = run_git(root, "for-each-ref", f"--format={fields}", f"refs/heads/{branch}") if branch else ""
    remote, _, reference = output.strip("\n").partition("\0")
    if not remote or remote == "." or not reference:
        return ""
    name = f"{clean_remote_url(remote)} {reference.removeprefix('refs/heads/')}"
    try:
        commit = run_git(root, "ls-remote", remote, reference).partition("\t")[0]
    except PreconditionError as error:
        is_reported = remote == push_remote
        return "" if is_reported else "; ".join((f"cannot query {name}", *error.details[:1]))
    if not commit:
        return ""  # new, or deleted there
    if _git_error_message(root, "cat-file", "-e", f"{commit}^{{commit}}"):
        relation = "is behind, or has diverged from,"
    else:
        ahead, behind = run_git(root, "rev-list", "--left-right", "--count", f"HEAD...{commit}").split()
        if behind == "0":
            return ""
        relation = "has diverged from" if ahead != "0" else "is behind"
    return f"{branch} {relation} {name} at {commit[:7]}; run `git pull`, then `build test`"


def _check_changelog(work: Workspace, changelog: str) -> str:
    """Return a problem if writing the changelog would make an image stale."""
    file = work.root / changelog
    for name, image in work.config.images.items():
        context = work.root / image.context
        if file.is_relative_to(context):
            ignore_matcher = read_ignore_patterns(context, dockerfile_path(work.root, image))
            if not ignore_matcher.matches(file.relative_to(context).as_posix()):
                return f"{changelog} is in the build context of {name}; add it to .dockerignore"
    return ""


def _git_error_message(root: Path, *arguments: str) -> str:
    try:
        run_git(root, *arguments)
    except PreconditionError as error:
        return " ".join(error.details) or error.message
    return ""
