"""Hash files, and cache the hashes of those that did not change.

A file is known by its size, inode and times; only the kernel sets the time of the last change. A file changed just
before it was hashed is not cached, since a coarse timestamp could hide a second change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from lyra_tasks.documents import parse_foreign_json, read_document, translate_failures
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.files import write_file

MIN_CACHED_FILE_BYTES = 256 * 1024
"""Hashing a smaller file takes no longer than looking it up on disk."""

_SCHEMA = "lyra.file-hashes/2"
_MIN_FILE_AGE_NS = 2 * 10**9  # FAT has the coarsest timestamps: 2 s
_CHUNK_BYTES = 1024 * 1024
_STAMP_PATTERN = re.compile(r"\d+( -?\d+){4}")
_SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
_GIT_ID_PATTERN = re.compile(r"[0-9a-f]{40}")


class ContentHash(NamedTuple):
    """The SHA-256 of a file's content, and the id of a git blob with this content."""

    sha256: str
    git_id: str


def format_stamp(status: os.stat_result) -> str:
    """Return what changes with every change of a file's content or attributes, even one that is undone."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {status.st_dev}"


def is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Return whether a file changed so long ago that another change will have another time."""
    return status.st_ctime_ns < now_ns - _MIN_FILE_AGE_NS


def hash_content(data: bytes) -> ContentHash:
    """Return the hashes of a file with this content."""
    return ContentHash(hashlib.sha256(data).hexdigest(), _git_hasher(len(data), data).hexdigest())


@cache
def open_file_hashes(cache_file: Path) -> FileHashCache:
    """Return this process's cache of hashes that keeps those of large files in `cache_file`."""
    return FileHashCache(cache_file)


class FileHashCache:
    """The hashes of files; those of large ones are also kept on disk, if `.lyra/` exists."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file  # read on first use
        self._hashes: dict[str, tuple[str, ContentHash]] = {}
        self._saved: dict[str, tuple[str, ContentHash]] | None = None

    def hash_file(self, path: str, status: os.stat_result) -> ContentHash:
        """Return the hashes of the regular file at `path`, whose `lstat` is `status`."""
        if self._saved is None and status.st_size >= MIN_CACHED_FILE_BYTES:
            self._saved = _read_cache(self._cache_file)
            self._hashes |= self._saved
        stamp = format_stamp(status)
        known_stamp, known = self._hashes.get(path, ("", None))
        if known is not None and known_stamp == stamp:
            return known
        started = time.time_ns()
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            content_hash = _hash_open_file(file, status.st_size)
            is_unchanged = format_stamp(os.fstat(file.fileno())) == stamp
        if is_unchanged and is_settled(status, started):
            self._hashes[path] = (stamp, content_hash)
        return content_hash

    def save(self, paths: Iterable[str]) -> None:
        """Write the hashes of the large ones of these files, if they changed; without a cache it is only slower."""
        if self._saved is None or not self._cache_file.parent.parent.is_dir():
            return
        entries = {path: self._hashes[path] for path in paths if path in self._hashes}
        large = {path: entry for path, entry in entries.items() if int(entry[0].split()[0]) >= MIN_CACHED_FILE_BYTES}
        if large != self._saved:
            document = {"schema": _SCHEMA, "files": large}
            with suppress(OSError, LyraError):
                write_file(self._cache_file, json.dumps(document, indent=0, sort_keys=True).encode())
            self._saved = large


def _hash_open_file(file: IO[bytes], size: int) -> ContentHash:
    if size < MIN_CACHED_FILE_BYTES:
        return hash_content(file.read())
    content, blob = hashlib.sha256(), _git_hasher(size)
    while chunk := file.read(_CHUNK_BYTES):
        content.update(chunk)
        blob.update(chunk)
    return ContentHash(content.hexdigest(), blob.hexdigest())


def _git_hasher(size: int, data: bytes = b"") -> Any:
    return hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False)


def _read_cache(cache_file: Path) -> dict[str, tuple[str, ContentHash]]:
    """Return the cached entries, or none of a damaged file."""
    try:
        with translate_failures(PreconditionError):
            document = parse_foreign_json(read_document(cache_file))  # names need not be UTF-8
            if document.keys() != {"schema", "files"} or document["schema"] != _SCHEMA:
                return {}
            files = {
                str(name): (str(stamp), ContentHash(str(sha256), str(git_id)))
                for name, (stamp, (sha256, git_id)) in document["files"].items()
            }
    except PreconditionError:
        return {}
    is_valid = all(
        _STAMP_PATTERN.fullmatch(stamp) and _SHA256_PATTERN.fullmatch(sha256) and _GIT_ID_PATTERN.fullmatch(git_id)
        for stamp, (sha256, git_id) in files.values()
    )
    return files if is_valid else {}
