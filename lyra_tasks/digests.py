"""SHA-256 digests of bytes, files and JSON values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lyra_tasks.errors import name_unreadable_file

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
_PREFIX = "sha256:"
_BLOCK_BYTES = 1 << 20


def sha256_hex(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_digest(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` in OCI's notation, `sha256:…`."""
    return _PREFIX + sha256_hex(data)


def file_sha256(path: Path, on_read: Callable[[int], object] | None = None) -> str:
    """Return the SHA-256 of a file in hex; `on_read` gets the size of each block that was read."""
    with name_unreadable_file(path), path.open("rb") as file:
        if on_read is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            on_read(len(block))
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value` in hex."""
    return sha256_hex(canonical_json(value).encode("utf-8", "backslashreplace"))


def hex_part(digest: str) -> str:
    """Return a digest without its `sha256:`."""
    return digest.removeprefix(_PREFIX)
