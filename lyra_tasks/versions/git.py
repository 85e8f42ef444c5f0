"""What git knows about a checkout, and the one way in which git is called."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from lyra_tasks.errors import PreconditionError
from lyra_tasks.redaction import strip_url_credentials
from lyra_tasks.versions.formats import DEFAULT_TAG_PATTERN, Tag, find_highest_tag

if TYPE_CHECKING:
    import semver

SHORT_ID_LENGTH = 7
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
    commit_time: int
    branch: str
    changed_paths: tuple[str, ...]
    dirty_hash: str
    is_shallow: bool
    tags: tuple[Tag, ...]
    distance: int
    remote_url: str

    @property
    def short_commit(self) -> str:
        """The commit as versions show it."""
        return self.commit[:SHORT_ID_LENGTH]

    @property
    def commit_date(self) -> str:
        """The day of the commit, as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.commit_time, UTC).date().isoformat()

    @property
    def is_dirty(self) -> bool:
        """Whether anything differs from the commit."""
        return bool(self.changed_paths)

    def find_version_tag(self, pattern: str = DEFAULT_TAG_PATTERN) -> tuple[Tag, semver.Version] | None:
        """The tag that the version is told by: the highest on this commit, else the highest that it can reach."""
        return _find_version_tag(self.tags, self.commit, pattern)


def collect_git_facts(root: Path, tag_pattern: str = DEFAULT_TAG_PATTERN, *, outputs: Sequence[str] = ()) -> GitFacts:
    """The facts about the checkout at `root`; `outputs` are paths below it that Lyra writes, and that count as clean.

    PreconditionError without git, a repository or a commit.
    """
    shallow, _, toplevel = run_git(root, "rev-parse", "--is-shallow-repository", "--show-toplevel").partition("\n")
    top = Path(toplevel.removesuffix("\n"))
    commit, branch, changed_paths = _read_status(root, [path for path in outputs if _is_below(root / path, top)])
    if commit == _INITIAL:
        raise PreconditionError(f"the git repository at {top} has no commits", hint="commit first")
    tags = _list_tags(root)
    version_tag = _find_version_tag(tags, commit, tag_pattern)
    revision_range = f"{version_tag[0].commit}..HEAD" if version_tag else "HEAD"
    return GitFacts(
        top=top,
        commit=commit,
        commit_time=int(run_git(root, "-c", "log.showSignature=false", "log", "-1", "--format=%ct")),
        branch="" if branch == _DETACHED else branch,
        changed_paths=changed_paths,
        dirty_hash=hash_changed_files(top, changed_paths)[:8] if changed_paths else "",
        is_shallow=shallow == "true",
        tags=tags,
        distance=int(run_git(root, "rev-list", "--count", revision_range)),
        remote_url=_get_remote_url(root),
    )


def run_git(root: Path, *arguments: str, stdin: str | None = None) -> str:
    """What a git command says, run in `root` with `text` as its input; PreconditionError in git's words if it fails."""
    result = _call_git(root, arguments, stdin)
    if result.returncode:
        raise _git_error(root, arguments, result.stderr)
    return result.stdout


def find_default_remote(root: Path) -> str:
    """The remote that counts: `origin`, or the first; empty if there is none."""
    names = run_git(root, "remote").split()
    return "origin" if "origin" in names else next(iter(names), "")


def find_missing_submodules(top: Path) -> tuple[Path, ...]:
    """The folders of submodules that are not there yet, in the repository at `top`; git calls such a tree clean."""
    if not (top / ".gitmodules").is_file():
        return ()
    entries = run_git(top, "ls-files", "--stage", "-z").split("\0")
    paths = [top / entry.partition("\t")[2] for entry in entries if entry.startswith(_SUBMODULE)]
    return tuple(path for path in paths if not (path / ".git").exists())


def strip_credentials(url: str) -> str:
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


def _call_git(root: Path, arguments: Sequence[str], stdin: str | None) -> subprocess.CompletedProcess[str]:
    # A hook's GIT_DIR and the like would point git at another repository than the one at `root`
    environment = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=environment,
            input=stdin or "",
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        if not root.is_dir():
            raise PreconditionError(f"{root} is not a folder", hint="change to the project") from error
        raise PreconditionError("git is not installed, or not on PATH", hint="install git") from error


_REPOSITORY_VARIABLES = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
}


def _git_error(root: Path, arguments: Sequence[str], stderr: str) -> PreconditionError:
    lines = tuple(strip_url_credentials(line.strip()) for line in stderr.splitlines() if line.strip())
    if "dubious ownership" in stderr:
        hint = next((line for line in lines if line.startswith("git config")), "make yourself the owner of the folder")
        return PreconditionError(f"git refuses {root}: it belongs to another user", hint=hint, details=lines)
    if "not a git repository" in stderr:
        return PreconditionError(f"{root} is not in a git repository", hint="git init, add the files, and commit")
    subcommand = next((argument for argument in arguments if not argument.startswith("-") and "=" not in argument), "")
    return PreconditionError(f"git {subcommand} failed in {root}", hint="git's own message says why", details=lines)


def _read_status(root: Path, outputs: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """Commit, branch and changed paths, in git's stable format for programs."""
    output = run_git(
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
    for entry in output.split("\0"):
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


def _list_tags(root: Path) -> tuple[Tag, ...]:
    """All tags of commits that HEAD can reach; annotated ones are followed to their commit."""
    fields = "%(refname:strip=2)%00%(objectname)%00%(*objectname)"
    lines = run_git(root, "for-each-ref", "--merged=HEAD", f"--format={fields}", "refs/tags").split("\n")
    return tuple(Tag(name, peeled or plain) for name, plain, peeled in (line.split("\0") for line in lines if line))


def _find_version_tag(tags: Sequence[Tag], commit: str, pattern: str) -> tuple[Tag, semver.Version] | None:
    return find_highest_tag((tag for tag in tags if tag.commit == commit), pattern) or find_highest_tag(tags, pattern)


def _get_remote_url(root: Path) -> str:
    name = find_default_remote(root)
    return strip_credentials(run_git(root, "remote", "get-url", name).strip()) if name else ""


def hash_changed_files(top: Path, changed_paths: Iterable[str]) -> str:
    """The SHA-256 of names, kinds and content of the changed paths below `top`, whatever git is configured to show.

    A folder among them (a submodule, a repository inside) counts with all its files. PreconditionError if a file cannot
    be read.
    """
    hasher = hashlib.sha256()
    try:
        for path in sorted(changed_paths):
            for file in _list_files(top / path):
                hasher.update(os.fsencode(file.relative_to(top)) + b"\0" + _read_file_state(file) + b"\0")
    except OSError as error:
        raise PreconditionError(
            f"{error.filename} cannot be read: {error.strerror}", hint="commit it, ignore it, or change its permissions"
        ) from error
    return hasher.hexdigest()


def _list_files(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    files: list[Path] = []
    for directory, subdirectories, names in os.walk(path):
        subdirectories[:] = [name for name in subdirectories if name != ".git"]
        symlinks = [name for name in subdirectories if Path(directory, name).is_symlink()]
        files += [Path(directory, name) for name in [*names, *symlinks] if name != ".git"]
    return sorted(files)


def _read_file_state(file: Path) -> bytes:
    """Kind and content of one path: deleted, link and target, or executable bit and digest."""
    try:
        mode = file.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return b"deleted"
    if stat.S_ISLNK(mode):
        return b"link " + os.fsencode(file.readlink())
    if not stat.S_ISREG(mode):
        return b"special"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{'x' if mode & stat.S_IXUSR else '-'} {digest}".encode()
