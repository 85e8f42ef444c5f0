"""What a release depends on, found out; nothing is refused here, so that all that is wrong can be told at once."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.config.commits import Commit, commits_since
from lyra_tasks.config.git import GitFacts, git, remote_name
from lyra_tasks.config.inputs import dockerfile_path, ignore_patterns
from lyra_tasks.config.releases import Release, releases
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError, VerdictError
from lyra_tasks.release.decide import Decision, decide, last_release
from lyra_tasks.release.wanted import Wanted
from lyra_tasks.rules.deviations import rejudge
from lyra_tasks.rules.tested import tested_set


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
    reachable: tuple[Release, ...]
    decision: Decision
    commits: tuple[Commit, ...]
    source: str
    remote: str
    unfinished: str
    untested: str
    misnamed: str
    nameless: str
    unpushable: str
    misplaced: str


def gather(work: Workspace, asked: Wanted) -> ReleaseFacts:
    """The facts about a checkout; asks the engine for the tested set if `release.require_tests`."""
    root, release = work.root, work.config.release
    reachable = releases(root, release.tag, reachable=True)
    last = last_release(reachable)
    since = commits_since(root, last.tag if last else "")
    decision = decide(asked, reachable, since)
    before = decision.previous
    tag = release.tag.replace("{version}", str(decision.version))
    remote = remote_name(root)
    return ReleaseFacts(
        git=work.git,
        releases=releases(root, release.tag),
        reachable=reachable,
        decision=decision,
        commits=since if before == last else commits_since(root, before.tag if before else ""),
        source=work.config.project.source or work.git.remote,
        remote=remote,
        unfinished=_unfinished(root),
        untested=_untested(work) if release.require_tests else "",
        misnamed=_complaint(root, "check-ref-format", f"refs/tags/{tag}") and f"git takes no tag named {tag}",
        nameless=_complaint(root, "var", "GIT_COMMITTER_IDENT"),
        unpushable=_unpushable(root, remote, tag) if asked.push else "",
        misplaced=_misplaced(work, asked.changelog) if asked.changelog else "",
    )


_UNFINISHED = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


def _unfinished(root: Path) -> str:
    """What git is in the middle of: a merge may have changed no file, and HEAD still is not what it will be."""
    folder = Path(git(root, "rev-parse", "--absolute-git-dir").removesuffix("\n"))
    return next((what for name, what in _UNFINISHED.items() if (folder / name).exists()), "")


def _untested(work: Workspace) -> str:
    try:
        tested = tested_set(work)
        rejudge(work.config, tested.evidence.rules, datetime.date.today()).require()
    except PreconditionError as error:
        return f"{error.message}; {error.hint}"
    except VerdictError as error:
        return f"{'; '.join((error.message, *error.details))}; {error.hint}"
    return ""


def _unpushable(root: Path, remote: str, tag: str) -> str:
    if not remote:
        return "there is no remote to push to"
    try:
        there = git(root, "ls-remote", "--tags", remote, f"refs/tags/{tag}")
    except PreconditionError as error:
        return "; ".join((f"the remote {remote} cannot be asked", *error.details[:1]))
    return f"the remote {remote} has the tag {tag} already" if there else ""


def _misplaced(work: Workspace, changelog: str) -> str:
    """What is built would be stale at once if the changelog were part of it."""
    file = work.root / changelog
    for name, image in work.config.images.items():
        context = work.root / image.context
        if file.is_relative_to(context):
            ignored = ignore_patterns(context, dockerfile_path(work.root, image))
            if not ignored.matches(file.relative_to(context).as_posix()):
                return f"{changelog} is in the build context of {name}; leave it out in .dockerignore"
    return ""


def _complaint(root: Path, *words: str) -> str:
    """What git says against a question, or nothing."""
    try:
        git(root, *words)
    except PreconditionError as error:
        return " ".join(error.details) or error.message
    return ""
