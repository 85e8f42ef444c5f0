"""Hashes of large files, known again as long as the system says that nothing has touched the file.

The stamp of a file is its size, place and times; the time of its last change is the kernel's own, and no program can
set it. A file that was touched just before it was hashed is not remembered, since a file system that counts time
coarsely could hide a second change. Builders believe less than that when they decide which files of a context to send.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks.errors import LyraError
from lyra_tasks.files import write_file

LARGE = 256 * 1024
"""Bytes from which on a file is remembered; to hash a smaller one takes no longer than to look it up."""

_SCHEMA = "lyra.file-hashes/1"
_SETTLED = 2 * 10**9  # nanoseconds: the coarsest clock of a file system in use, FAT's
_STAMP = re.compile(r"\d+( -?\d+){4}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileHashes:
    """The hashes of one context's files, kept at `store` while the folder above its own is there; read on first use."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._before: dict[str, tuple[str, str]] | None = None
        self._now: dict[str, tuple[str, str]] = {}

    def digest(self, path: Path, size: int) -> bytes:
        """The SHA-256 of a file of about `size` bytes."""
        if size < LARGE:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        if self._before is None:
            self._before = _read(self._store)
        name = os.fspath(path)
        with path.open("rb") as file:
            stamp, changed = _stamp(file.fileno())
            known = self._before.get(name)
            if known and known[0] == stamp:
                self._now[name] = known
                return bytes.fromhex(known[1])
            settled = changed < time.time_ns() - _SETTLED
            found = hashlib.file_digest(file, "sha256")
            if settled and _stamp(file.fileno())[0] == stamp:
                self._now[name] = (stamp, found.hexdigest())
        return found.digest()

    def keep(self) -> None:
        """Write what is known now, if that is other than before; where it cannot be written, it is only not known."""
        if self._before is None or self._now == self._before or not self._store.parent.parent.is_dir():
            return
        document = {"schema": _SCHEMA, "files": self._now}
        with suppress(OSError, LyraError):
            write_file(self._store, json.dumps(document, indent=0, sort_keys=True).encode())


def _stamp(handle: int) -> tuple[str, int]:
    seen = os.fstat(handle)
    text = f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {seen.st_ino} {seen.st_dev}"
    return text, seen.st_ctime_ns


def _read(store: Path) -> dict[str, tuple[str, str]]:
    """What was kept; nothing of a file that is not as it was written."""
    try:
        document: Any = json.loads(store.read_bytes())
        if document.keys() != {"schema", "files"} or document["schema"] != _SCHEMA:
            return {}
        found = {str(name): (str(stamp), str(digest)) for name, (stamp, digest) in document["files"].items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    whole = all(_STAMP.fullmatch(stamp) and _DIGEST.fullmatch(digest) for stamp, digest in found.values())
    return found if whole else {}
