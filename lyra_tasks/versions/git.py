"""Call git and read the state of a checkout from it, with its version tags."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from semver import Version

from lyra_tasks.digests import file_sha256
from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import escape_surrogates, quote_path
from lyra_tasks.processes import create_environment
from lyra_tasks.redaction import strip_url_credentials

DEFAULT_TAG_PATTERN = "v{version}"
SHORT_ID_LENGTH = 7
"""Fixed, because git's own choice grows with the clone and would change the version."""

_TAG_FORMAT = "%(refname:strip=2)%00%(objectname)%00%(*objectname)%00%(creatordate:iso-strict)"
_MAX_VERSION_CHARS = 255
_INITIAL = "(initial)"
_DETACHED = "(detached)"
_SUBMODULE = "160000 "
_REPOSITORY_VARIABLES = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE",
    "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
}  # fmt: skip


@dataclass(frozen=True)
class Tag:
    """A git tag, the full id of its commit, and its date as ISO 8601."""

    name: str
    commit: str
    date: str = ""


@dataclass(frozen=True)
class GitFacts:
    """The state of a checkout with the working tree `top`.

    `branch` is empty on a detached HEAD. `changed_paths` are changed and untracked paths, relative to `top`, without
    ignored ones; `dirty_hash` are eight digits of a hash of them. `tags` are all tags reachable from HEAD, `distance`
    the number of commits since the highest version tag, or of all commits. `remote_url` is without credentials.
    `uncommitted_inputs` are what images contain and git does not commit, such as ignored files; they make the tree
    dirty unless `accepts_uncommitted`, by a deviation.
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
    uncommitted_inputs: tuple[str, ...] = ()
    accepts_uncommitted: bool = False

    @property
    def short_commit(self) -> str:
        """Return the abbreviated commit id."""
        return self.commit[:SHORT_ID_LENGTH]

    @property
    def commit_date(self) -> str:
        """Return the date of the commit in UTC, as ISO 8601."""
        return datetime.fromtimestamp(self.commit_time, UTC).date().isoformat()

    @property
    def is_dirty(self) -> bool:
        """Return whether the working tree differs from the commit."""
        return bool(self.changed_paths) or bool(self.uncommitted_inputs and not self.accepts_uncommitted)


def collect_git_facts(root: Path, tag_pattern: str = DEFAULT_TAG_PATTERN, *, outputs: Sequence[str] = ()) -> GitFacts:
    """Collect the state of the checkout at `root`; changes in `outputs`, which Lyra writes, do not make it dirty."""
    shallow, _, toplevel = run_git(root, "rev-parse", "--is-shallow-repository", "--show-toplevel").partition("\n")
    top = Path(toplevel.removesuffix("\n"))
    commit, branch, changed_paths = _read_status(root, [path for path in outputs if _is_below(root / path, top)])
    if commit == _INITIAL:
        raise PreconditionError(f"The git repository at {top} has no commits", hint="Run `git add . && git commit`")
    tags = list_tags(root, reachable=True)
    version_tag = find_version_tag(tags, commit, tag_pattern)
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


def run_git(root: Path, *arguments: str, stdin: str = "", allowed_exit_codes: Sequence[int] = (0,)) -> str:
    """Run a git command in `root` and return its output; if it fails, raise a PreconditionError with its messages.

    Commits are those that were made, not what replacements and grafts of this clone say instead.
    """
    # inside a git hook, GIT_DIR and the like point at another repository than the one at `root`
    settings = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    environment = create_environment(settings, remove=_REPOSITORY_VARIABLES)
    environment |= {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull}
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=environment,
            input=stdin,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        if not root.is_dir():
            raise PreconditionError(f"{root} is not a directory", hint="Change to the project directory") from error
        raise PreconditionError("git is not installed or not on PATH", hint="Install git") from error
    if result.returncode not in allowed_exit_codes:
        raise _git_error(root, arguments, result.stderr)
    return result.stdout


def read_head(root: Path) -> str:
    """Return the id of the checked out commit."""
    return run_git(root, "rev-parse", "--verify", "HEAD").strip()


def find_default_remote(root: Path) -> str:
    """Return `origin` if it exists, or else the first remote; empty without remotes."""
    names = run_git(root, "remote").split()
    return "origin" if "origin" in names else next(iter(names), "")


def find_missing_submodules(top: Path) -> tuple[Path, ...]:
    """Return the directories of uninitialized submodules, which git reports as clean."""
    if not (top / ".gitmodules").is_file():
        return ()
    entries = run_git(top, "ls-files", "--stage", "-z").split("\0")
    paths = [top / entry.partition("\t")[2] for entry in entries if entry.startswith(_SUBMODULE)]
    return tuple(path for path in paths if not (path / ".git").exists())


def clean_remote_url(url: str) -> str:
    """Remove user, password and query from a remote's URL; `git@host:path` stays as it is."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    user = "git@" if parts.scheme == "ssh" and parts.username == "git" else ""
    return urlunsplit((parts.scheme, user + host, parts.path, "", ""))


def _git_error(root: Path, arguments: Sequence[str], stderr: str) -> PreconditionError:
    lines = tuple(strip_url_credentials(line.strip()) for line in stderr.splitlines() if line.strip())
    if "dubious ownership" in stderr:
        hint = next(
            (line for line in lines if line.startswith("git config")),
            f"Run `sudo chown -R $(id -un) {quote_path(root)}`",
        )
        return PreconditionError(f"git refuses {root}: it belongs to another user", hint=hint, details=lines)
    if "not a git repository" in stderr:
        return PreconditionError(f"{root} is not in a git repository", hint="Run `git init && git add . && git commit`")
    subcommand = next((argument for argument in arguments if not argument.startswith("-") and "=" not in argument), "")
    return PreconditionError(f"git {subcommand} failed in {root}", hint="Fix what git reports and retry", details=lines)


def _read_status(root: Path, outputs: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """Return commit, branch and changed paths."""
    output = run_git(
        root,
        "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames",
        "--ignore-submodules=none", "--", ":/", *(f":(exclude,literal){path}" for path in outputs),
    )  # fmt: skip
    return parse_status(output)


def parse_status(output: str) -> tuple[str, str, tuple[str, ...]]:
    """Return commit, branch and changed paths of the output of `git status --porcelain=v2 --branch -z`."""
    headers: dict[str, str] = {}
    changed_paths: list[str] = []
    with translate_failures(lambda problem: PreconditionError(f"Cannot read what `git status` prints: {problem}")):
        for entry in output.split("\0"):
            if entry.startswith("# "):
                _, key, value = entry.split(" ", 2)
                headers[key] = value
            elif entry:
                field_count = {"1": 8, "u": 10, "?": 1}[entry[0]]
                changed_paths.append(entry.split(" ", field_count)[field_count])
        return headers["branch.oid"], escape_surrogates(headers["branch.head"]), tuple(sorted(changed_paths))


def _is_below(path: Path, top: Path) -> bool:
    """Return whether a path is inside the repository; git fails for others."""
    return Path(os.path.normpath(path.absolute())).is_relative_to(top)


def list_tags(root: Path, *, reachable: bool) -> tuple[Tag, ...]:
    """Return all tags or those reachable from HEAD, annotated ones peeled to their commit."""
    options = ("--merged=HEAD",) if reachable else ()
    lines = run_git(root, "for-each-ref", *options, f"--format={_TAG_FORMAT}", "refs/tags").split("\n")
    fields = (line.split("\0") for line in lines if line)
    return tuple(Tag(name, peeled_id or object_id, date) for name, object_id, peeled_id, date in fields)


def parse_tag(name: str, pattern: str = DEFAULT_TAG_PATTERN) -> Version | None:
    """Return the version in a tag's name, or None if the tag is not a version tag."""
    prefix, _, suffix = pattern.partition("{version}")
    if not (name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)):
        return None
    text = name[len(prefix) : len(name) - len(suffix)]
    # git allows any letters and digits in tags, semantic versions only ASCII
    if not text.isascii() or len(text) > _MAX_VERSION_CHARS or not Version.is_valid(text):
        return None
    return Version.parse(text)


def find_version_tag(tags: Iterable[Tag], commit: str, pattern: str) -> tuple[Tag, Version] | None:
    """Return the highest version tag of this commit, or else the highest one of all, with its version."""
    candidates = [(tag, version) for tag in tags if (version := parse_tag(tag.name, pattern)) is not None]
    # build metadata has no precedence; comparing names as well keeps the result stable
    return max(candidates, key=lambda pair: (pair[0].commit == commit, pair[1], pair[0].name), default=None)


def _get_remote_url(root: Path) -> str:
    name = find_default_remote(root)
    return escape_surrogates(clean_remote_url(run_git(root, "remote", "get-url", name).strip())) if name else ""


def hash_changed_files(top: Path, changed_paths: Iterable[str], known_hashes: Mapping[str, str] | None = None) -> str:
    """Return a SHA-256 of names, types and content of the changed paths below `top`, with all files in directories.

    `known_hashes` holds the SHA-256 of files that have been read already, by their path below `top`.
    """
    known_hashes = known_hashes or {}
    hasher = hashlib.sha256()
    try:
        for path in sorted(changed_paths):
            is_file = path in known_hashes
            for name in (path,) if is_file else (str(file.relative_to(top)) for file in _list_files(top / path)):
                state = _read_file_state(top / name, known_hashes.get(name))
                hasher.update(os.fsencode(name) + b"\0" + state + b"\0")
    except OSError as error:
        raise PreconditionError(
            f"Cannot read {error.filename}: {error.strerror}", hint="Commit it, ignore it or change its permissions"
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


def _read_file_state(file: Path, known_hash: str | None) -> bytes:
    """Return type and content of a path: deleted, link target, or executable bit and digest."""
    try:
        mode = file.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return b"deleted"
    if stat.S_ISLNK(mode):
        return b"link " + os.fsencode(file.readlink())
    if not stat.S_ISREG(mode):
        return b"special"
    return f"{'x' if mode & stat.S_IXUSR else '-'} {known_hash or file_sha256(file)}".encode()
