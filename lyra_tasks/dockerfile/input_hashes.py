"""What an image is built from, as hashes: the files of its context, its Dockerfile, arguments, target and bases.

The hashes decide whether a built image is stale, and name what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.discovery import display_path
from lyra_tasks.config.models import Image
from lyra_tasks.errors import ConfigurationError, LyraError
from lyra_tasks.files import write_file

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher


def dockerfile_path(root: Path, image: Image) -> Path:
    """The Dockerfile of `image`; like Docker, relative to its context."""
    return root / image.context / image.dockerfile


def compute_input_hashes(root: Path, image: Image, commit: str) -> dict[str, str]:
    """One hash per kind of input that is the same for every platform: `context`, `dockerfile`, `args`, `target`, …"""
    dockerfile = dockerfile_path(root, image)
    return {
        "context": hash_context(root / image.context, dockerfile, open_file_hash_cache(root, image)),
        "dockerfile": hashlib.sha256(dockerfile.read_bytes()).hexdigest(),
        "args": hash_mapping(image.args),
        "target": image.target,
        "commit": commit,
    }


def list_changed_inputs(recorded: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, ...]:
    """The kinds of input that differ."""
    return tuple(sorted(key for key in {*recorded, *current} if recorded.get(key) != current.get(key)))


def open_file_hash_cache(root: Path, image: Image) -> FileHashCache:
    """The hashes of large files that are known from before, in `.lyra/` of the project."""
    key = hashlib.sha256(f"{image.context}\0{image.dockerfile}".encode()).hexdigest()[:16]
    return FileHashCache(root / ".lyra" / "hashes" / f"{key}.json")


def hash_context(context: Path, dockerfile: Path, file_hashes: FileHashCache) -> str:
    """A hash of the context as the builder sees it: names, kinds, executable bits and contents, without the ignored."""
    hasher = hashlib.sha256()
    for name, path, status in sorted(iterate_context_files(context, dockerfile), key=lambda entry: entry[:2]):
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            kind, content = "link", os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            kind = "program" if mode & 0o111 else "file"
            content = file_hashes.digest(path, status.st_size)
        else:
            kind, content = "other", b""
        hasher.update(f"{kind}\0{name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    file_hashes.save()
    return hasher.hexdigest()


def iterate_context_files(context: Path, dockerfile: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every entry of a build context that `.dockerignore` leaves in: name, path, status; folders are not entries."""
    ignore_matcher = read_ignore_patterns(context, dockerfile)
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(context / directory) as entries:
            for entry in entries:
                name = f"{directory}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    # a later `!pattern` may bring something below an ignored folder back
                    if not ignore_matcher.matches(name) or any(
                        pattern.startswith("!") for pattern in ignore_matcher.patterns
                    ):
                        pending.append(f"{name}/")
                elif not ignore_matcher.matches(name):
                    yield name, Path(entry.path), entry.stat(follow_symlinks=False)


def read_ignore_patterns(context: Path, dockerfile: Path) -> PatternMatcher:
    """The patterns of `<Dockerfile>.dockerignore`, which wins, or of the context's `.dockerignore`.

    ConfigurationError that names the file, and the line where one is to blame.
    """
    from e2b_dockerfile_utils import PatternMatcher

    for candidate in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if candidate.is_file():
            return _parse_ignore_file(candidate)
    return PatternMatcher([])


def _parse_ignore_file(file: Path) -> PatternMatcher:
    from e2b_dockerfile_utils import PatternMatcher

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{display_path(file)}: not UTF-8", hint="save it as UTF-8, as Docker reads it"
        ) from error
    patterns = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            patterns.append(_strip_leading_slash(line.strip()))
            try:
                PatternMatcher(patterns[-1:])
            except ValueError as error:
                raise ConfigurationError(
                    f"{display_path(file)}:{number}: not a valid pattern: {str(error).rpartition(': ')[2]}",
                    hint="correct or remove this line",
                ) from error
    return PatternMatcher(patterns)


def _strip_leading_slash(pattern: str) -> str:
    """Docker reads `/name` as `name`."""
    negated = pattern.startswith("!")
    body = pattern[1:].strip() if negated else pattern
    return ("!" if negated else "") + (body.lstrip("/") or ".")


def hash_mapping(items: Mapping[str, str]) -> str:
    """A hash of names and values, whatever their order."""
    return hashlib.sha256("\0".join(f"{key}={value}" for key, value in sorted(items.items())).encode()).hexdigest()


MIN_CACHED_FILE_BYTES = 256 * 1024
"""Bytes from which on a file is remembered; to hash a smaller one takes no longer than to look it up."""

_SCHEMA = "lyra.file-hashes/1"
_MIN_FILE_AGE_NS = 2 * 10**9  # nanoseconds: the coarsest clock of a file system in use, FAT's
_STAMP_PATTERN = re.compile(r"\d+( -?\d+){4}")
_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


class FileHashCache:
    """The hashes of one context's files, kept at `store` while the folder above its own is there; read on first use."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file
        self._previous: dict[str, tuple[str, str]] | None = None
        self._current: dict[str, tuple[str, str]] = {}

    def digest(self, path: Path, size: int) -> bytes:
        """The SHA-256 of a file of about `size` bytes."""
        if size < MIN_CACHED_FILE_BYTES:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        if self._previous is None:
            self._previous = _read_cache(self._cache_file)
        name = os.fspath(path)
        with path.open("rb") as file:
            stamp, changed_at = _read_stamp(file.fileno())
            entry = self._previous.get(name)
            if entry and entry[0] == stamp:
                self._current[name] = entry
                return bytes.fromhex(entry[1])
            is_settled = changed_at < time.time_ns() - _MIN_FILE_AGE_NS
            digest = hashlib.file_digest(file, "sha256")
            if is_settled and _read_stamp(file.fileno())[0] == stamp:
                self._current[name] = (stamp, digest.hexdigest())
        return digest.digest()

    def save(self) -> None:
        """Write what is known now, if that is other than before; where it cannot be written, it is only not known."""
        if self._previous is None or self._current == self._previous or not self._cache_file.parent.parent.is_dir():
            return
        document = {"schema": _SCHEMA, "files": self._current}
        with suppress(OSError, LyraError):
            write_file(self._cache_file, json.dumps(document, indent=0, sort_keys=True).encode())


def _read_stamp(descriptor: int) -> tuple[str, int]:
    status = os.fstat(descriptor)
    text = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {status.st_dev}"
    return text, status.st_ctime_ns


def _read_cache(cache_file: Path) -> dict[str, tuple[str, str]]:
    """What was kept; nothing of a file that is not as it was written."""
    try:
        document: Any = json.loads(cache_file.read_bytes())
        if document.keys() != {"schema", "files"} or document["schema"] != _SCHEMA:
            return {}
        files = {str(name): (str(stamp), str(digest)) for name, (stamp, digest) in document["files"].items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    is_valid = all(
        _STAMP_PATTERN.fullmatch(stamp) and _DIGEST_PATTERN.fullmatch(digest) for stamp, digest in files.values()
    )
    return files if is_valid else {}
