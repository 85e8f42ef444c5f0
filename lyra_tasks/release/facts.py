"""What a release depends on, found out; nothing is refused here, so that all that is wrong can be told at once."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.dockerfile.input_hashes import dockerfile_path, read_ignore_patterns
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.release.next_version import Decision, ReleaseRequest, decide_version, find_last_release
from lyra_tasks.rules.deviations import reassess_results
from lyra_tasks.rules.freshness import require_tested_set
from lyra_tasks.versions.changelog import Commit, list_commits_since
from lyra_tasks.versions.git import GitFacts, find_default_remote, run_git
from lyra_tasks.versions.version import Release, list_releases


@dataclass(frozen=True)
class ReleaseFacts:
    """The state of a checkout before a release.

    `releases` are all versions that are tagged, `reachable` those that HEAD can reach, both highest first; `commits`
    are those since the version before. `unfinished` is what git is in the middle of, such as a merge, or empty.
    The last five say what is wrong with the tests of HEAD's set, the tag's name, the name that git would sign with, the
    remote (asked only for `--push`) and the place of the changelog; each is empty where nothing is.
    """

    git: GitFacts
    releases: tuple[Release, ...]
    reachable_releases: tuple[Release, ...]
    decision: Decision
    commits: tuple[Commit, ...]
    source_url: str
    remote_name: str
    unfinished_operation: str
    test_problem: str
    tag_name_problem: str
    tagger_problem: str
    push_problem: str
    changelog_problem: str


def collect_release_facts(work: Workspace, request: ReleaseRequest) -> ReleaseFacts:
    """The facts about a checkout; asks the engine for the tested set if `release.require_tests`."""
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
        test_problem=_describe_test_problem(work) if release.require_tests else "",
        tag_name_problem=_git_error_message(root, "check-ref-format", f"refs/tags/{tag}")
        and f"git takes no tag named {tag}",
        tagger_problem=_git_error_message(root, "var", "GIT_COMMITTER_IDENT"),
        push_problem=_describe_push_problem(root, remote, tag) if request.push else "",
        changelog_problem=_describe_changelog_problem(work, request.changelog) if request.changelog else "",
    )


_OPERATION_FILES = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


def _find_unfinished_operation(root: Path) -> str:
    """What git is in the middle of: a merge may have changed no file, and HEAD still is not what it will be."""
    git_directory = Path(run_git(root, "rev-parse", "--absolute-git-dir").removesuffix("\n"))
    return next((operation for name, operation in _OPERATION_FILES.items() if (git_directory / name).exists()), "")


def _describe_test_problem(work: Workspace) -> str:
    try:
        tested = require_tested_set(work)
        reassess_results(work.config, tested.evidence.rules, datetime.date.today()).raise_if_failed()
    except PreconditionError as error:
        return f"{error.message}; {error.hint}"
    except CheckFailedError as error:
        return f"{'; '.join((error.message, *error.details))}; {error.hint}"
    return ""


def _describe_push_problem(root: Path, remote: str, tag: str) -> str:
    if not remote:
        return "there is no remote to push to"
    try:
        remote_tag = run_git(root, "ls-remote", "--tags", remote, f"refs/tags/{tag}")
    except PreconditionError as error:
        return "; ".join((f"the remote {remote} cannot be asked", *error.details[:1]))
    return f"the remote {remote} has the tag {tag} already" if remote_tag else ""


def _describe_changelog_problem(work: Workspace, changelog: str) -> str:
    """What is built would be stale at once if the changelog were part of it."""
    file = work.root / changelog
    for name, image in work.config.images.items():
        context = work.root / image.context
        if file.is_relative_to(context):
            ignore_matcher = read_ignore_patterns(context, dockerfile_path(work.root, image))
            if not ignore_matcher.matches(file.relative_to(context).as_posix()):
                return f"{changelog} is in the build context of {name}; leave it out in .dockerignore"
    return ""


def _git_error_message(root: Path, *arguments: str) -> str:
    """What git says against a question, or nothing."""
    try:
        run_git(root, *arguments)
    except PreconditionError as error:
        return " ".join(error.details) or error.message
    return ""
