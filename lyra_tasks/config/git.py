"""What git knows about a checkout, and the one way in which git is called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from lyra_tasks.config.fingerprint import fingerprint
from lyra_tasks.config.tags import DEFAULT_PATTERN, Tag, highest
from lyra_tasks.config.text import public
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    import semver

SHORT = 7
"""Digits of a short commit id: fixed, since git's own choice grows with the clone and would change the version."""

_INITIAL = "(initial)"
_DETACHED = "(detached)"
_SUBMODULE = "160000 "


@dataclass(frozen=True)
class GitFacts:
    """The state of a checkout.

    `time` is the commit's, in seconds since 1970. `branch` is empty on a detached HEAD. `changed` are the paths, from
    `top`, that differ from the commit or are untracked and not ignored; `dirty_hash` are eight hexadecimal digits of
    their content, empty for a clean tree. `tags` are all that HEAD can reach; `distance` counts the commits after the
    highest version among them, or all. `remote` is the URL without credentials, or empty.
    """

    top: Path
    commit: str
    time: int
    branch: str
    changed: tuple[str, ...]
    dirty_hash: str
    shallow: bool
    tags: tuple[Tag, ...]
    distance: int
    remote: str

    @property
    def short(self) -> str:
        """The commit as versions show it."""
        return self.commit[:SHORT]

    @property
    def day(self) -> str:
        """The day of the commit, as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.time, UTC).date().isoformat()

    @property
    def dirty(self) -> bool:
        """Whether anything differs from the commit."""
        return bool(self.changed)

    def version_tag(self, pattern: str = DEFAULT_PATTERN) -> tuple[Tag, semver.Version] | None:
        """The tag that the version is told by: the highest on this commit, else the highest that it can reach."""
        return _version_tag(self.tags, self.commit, pattern)


def git_facts(root: Path, tag_pattern: str = DEFAULT_PATTERN, *, outputs: Sequence[str] = ()) -> GitFacts:
    """The facts about the checkout at `root`; `outputs` are paths below it that Lyra writes, and that count as clean.

    PreconditionError without git, a repository or a commit.
    """
    shallow, _, folder = git(root, "rev-parse", "--is-shallow-repository", "--show-toplevel").partition("\n")
    top = Path(folder.removesuffix("\n"))
    commit, branch, changed = _status(root, [path for path in outputs if _is_below(root / path, top)])
    if commit == _INITIAL:
        raise PreconditionError(f"the git repository at {top} has no commits", hint="commit first")
    tags = _tags(root)
    found = _version_tag(tags, commit, tag_pattern)
    span = f"{found[0].commit}..HEAD" if found else "HEAD"
    return GitFacts(
        top=top,
        commit=commit,
        time=int(git(root, "-c", "log.showSignature=false", "log", "-1", "--format=%ct")),
        branch="" if branch == _DETACHED else branch,
        changed=changed,
        dirty_hash=fingerprint(top, changed)[:8] if changed else "",
        shallow=shallow == "true",
        tags=tags,
        distance=int(git(root, "rev-list", "--count", span)),
        remote=_remote(root),
    )


def git(root: Path, *words: str, text: str | None = None) -> str:
    """What a git command says, run in `root` with `text` as its input; PreconditionError in git's words if it fails."""
    result = _run(root, words, text)
    if result.returncode:
        raise _refusal(root, words, result.stderr)
    return result.stdout


def remote_name(root: Path) -> str:
    """The remote that counts: `origin`, or the first; empty if there is none."""
    names = git(root, "remote").split()
    return "origin" if "origin" in names else next(iter(names), "")


def missing_submodules(top: Path) -> tuple[Path, ...]:
    """The folders of submodules that are not there yet, in the repository at `top`; git calls such a tree clean."""
    if not (top / ".gitmodules").is_file():
        return ()
    listed = git(top, "ls-files", "--stage", "-z").split("\0")
    folders = [top / entry.partition("\t")[2] for entry in listed if entry.startswith(_SUBMODULE)]
    return tuple(folder for folder in folders if not (folder / ".git").exists())


def without_credentials(url: str) -> str:
    """A remote's URL as it may be published: no user or password, no query; `git@host:path` stays as it is."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    user = "git@" if parts.scheme == "ssh" and parts.username == "git" else ""
    return urlunsplit((parts.scheme, user + host, parts.path, "", ""))


def _run(root: Path, words: Sequence[str], text: str | None) -> subprocess.CompletedProcess[str]:
    # A hook's GIT_DIR and the like would point git at another repository than the one at `root`
    environment = {name: value for name, value in os.environ.items() if name not in _POINTERS}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", *words],
            cwd=root,
            env=environment,
            input=text or "",
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        if not root.is_dir():
            raise PreconditionError(f"{root} is not a folder", hint="change to the project") from error
        raise PreconditionError("git is not installed, or not on PATH", hint="install git") from error


_POINTERS = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"}


def _refusal(root: Path, words: Sequence[str], stderr: str) -> PreconditionError:
    lines = tuple(public(line.strip()) for line in stderr.splitlines() if line.strip())
    if "dubious ownership" in stderr:
        advice = next(
            (line for line in lines if line.startswith("git config")), "make yourself the owner of the folder"
        )
        return PreconditionError(f"git refuses {root}: it belongs to another user", hint=advice, details=lines)
    if "not a git repository" in stderr:
        return PreconditionError(f"{root} is not in a git repository", hint="git init, add the files, and commit")
    verb = next((word for word in words if not word.startswith("-") and "=" not in word), "")
    return PreconditionError(f"git {verb} failed in {root}", hint="git's own message says why", details=lines)


def _status(root: Path, outputs: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """Commit, branch and changed paths, in git's stable format for programs."""
    answer = git(
        root,
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=all",
        "--no-renames",
        "--ignore-submodules=none",
        "--",
        ":/",
        *(f":(exclude,literal){path}" for path in outputs),
    )
    headers: dict[str, str] = {}
    changed: list[str] = []
    for entry in answer.split("\0"):
        if entry.startswith("# "):
            _, key, value = entry.split(" ", 2)
            headers[key] = value
        elif entry:
            fields = {"1": 8, "u": 10, "?": 1}[entry[0]]
            changed.append(entry.split(" ", fields)[fields])
    return headers["branch.oid"], headers["branch.head"], tuple(sorted(changed))


def _is_below(path: Path, top: Path) -> bool:
    """Whether git can be asked about a path: it refuses those outside the repository."""
    return Path(os.path.normpath(path.absolute())).is_relative_to(top)


def _tags(root: Path) -> tuple[Tag, ...]:
    """All tags of commits that HEAD can reach; annotated ones are followed to their commit."""
    names = "%(refname:strip=2)%00%(objectname)%00%(*objectname)"
    lines = git(root, "for-each-ref", "--merged=HEAD", f"--format={names}", "refs/tags").split("\n")
    return tuple(Tag(name, peeled or plain) for name, plain, peeled in (line.split("\0") for line in lines if line))


def _version_tag(tags: Sequence[Tag], commit: str, pattern: str) -> tuple[Tag, semver.Version] | None:
    return highest((tag for tag in tags if tag.commit == commit), pattern) or highest(tags, pattern)


def _remote(root: Path) -> str:
    name = remote_name(root)
    return without_credentials(git(root, "remote", "get-url", name).strip()) if name else ""
