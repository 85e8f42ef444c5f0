"""Hash the inputs of a build (context, Dockerfile, arguments, target) to find stale images.

The hashes of large files are cached, keyed by size, inode and times; only the kernel sets the time of the last change.
A file changed just before it was hashed is not cached, since a coarse timestamp could hide a second change.
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

from lyra_tasks.config.models import Image
from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.errors import ConfigurationError, LyraError
from lyra_tasks.files import display_path, write_file

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher

MIN_CACHED_FILE_BYTES = 256 * 1024
"""Hashing a smaller file takes no longer than looking it up."""

_SCHEMA = "lyra.file-hashes/1"
_MIN_FILE_AGE_NS = 2 * 10**9  # FAT has the coarsest timestamps: 2 s
_STAMP_PATTERN = re.compile(r"\d+( -?\d+){4}")
_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


def dockerfile_path(root: Path, image: Image) -> Path:
    """Return the path of an image's Dockerfile, relative to its context as in Docker."""
    return root / image.context / image.dockerfile


def compute_input_hashes(root: Path, image: Image, commit: str) -> dict[str, str]:
    """Return the platform-independent inputs of an image by kind: `context`, `dockerfile`, `args`, ..."""
    dockerfile = dockerfile_path(root, image)
    cache_name = sha256_hex(f"{image.context}\0{image.dockerfile}".encode())[:16]
    file_hashes = FileHashCache(root / ".lyra" / "hashes" / f"{cache_name}.json")
    return {
        "context": _hash_context(root / image.context, dockerfile, file_hashes),
        "dockerfile": sha256_hex(dockerfile.read_bytes()),
        "args": hash_mapping(image.args),
        "target": image.target,
        "commit": commit,
    }


def list_changed_inputs(recorded: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of input that differ."""
    return tuple(sorted(key for key in {*recorded, *current} if recorded.get(key) != current.get(key)))


def _hash_context(context: Path, dockerfile: Path, file_hashes: FileHashCache) -> str:
    """Return a hash of the context as the builder sees it: names, types, executable bits and content."""
    hasher = hashlib.sha256()
    for name, path, status in sorted(_iterate_context_files(context, dockerfile), key=lambda entry: entry[:2]):
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


def _iterate_context_files(context: Path, dockerfile: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield name, path and status of each file in a build context that `.dockerignore` does not exclude."""
    ignore_matcher = read_ignore_patterns(context, dockerfile)
    has_exceptions = any(pattern.startswith("!") for pattern in ignore_matcher.patterns)
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(context / directory) as entries:
            for entry in entries:
                name = f"{directory}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    # a later `!pattern` may include a path below an ignored directory again
                    if has_exceptions or not ignore_matcher.matches(name):
                        pending.append(f"{name}/")
                elif not ignore_matcher.matches(name):
                    yield name, Path(entry.path), entry.stat(follow_symlinks=False)


def read_ignore_patterns(context: Path, dockerfile: Path) -> PatternMatcher:
    """Read `<Dockerfile>.dockerignore` or, if it does not exist, `.dockerignore` of the context."""
    from e2b_dockerfile_utils import PatternMatcher

    candidates = (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore")
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        return PatternMatcher([])
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"Cannot read {display_path(file)}: not valid UTF-8", hint="Save it as UTF-8"
        ) from error
    patterns = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            patterns.append(_strip_leading_slash(line.strip()))
            try:
                PatternMatcher(patterns[-1:])
            except ValueError as error:
                raise ConfigurationError(
                    f"{display_path(file)}:{number}: invalid pattern: {str(error).rpartition(': ')[2]}",
                    hint="Fix or remove the line",
                ) from error
    return PatternMatcher(patterns)


def _strip_leading_slash(pattern: str) -> str:
    """Return the pattern as Docker reads it: `/name` as `name`."""
    is_negated = pattern.startswith("!")
    body = pattern[1:].strip() if is_negated else pattern
    return ("!" if is_negated else "") + (body.lstrip("/") or ".")


def hash_mapping(items: Mapping[str, str]) -> str:
    """Return a hash of names and values that does not depend on their order."""
    return sha256_hex("\0".join(f"{key}={value}" for key, value in sorted(items.items())).encode())


class FileHashCache:
    """The cached hashes of a context's large files; saved only if `.lyra/` exists."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file  # read on first use
        self._previous: dict[str, tuple[str, str]] | None = None
        self._current: dict[str, tuple[str, str]] = {}

    def digest(self, path: Path, size: int) -> bytes:
        """Return the SHA-256 of a file of about `size` bytes."""
        if size < MIN_CACHED_FILE_BYTES:
            return bytes.fromhex(file_sha256(path))
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
        """Write the cache if it changed; a cache that cannot be written is only slower."""
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
    """Return the cached entries, or none of a damaged file."""
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
