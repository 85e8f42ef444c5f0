"""SHA-256 digests of bytes, files and JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_PREFIX = "sha256:"


def sha256_hex(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_digest(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` in OCI's notation, `sha256:…`."""
    return _PREFIX + sha256_hex(data)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value` in hex."""
    return sha256_hex(canonical_json(value).encode("utf-8", "backslashreplace"))


def hex_part(digest: str) -> str:
    """Return a digest without its `sha256:`."""
    return digest.removeprefix(_PREFIX)
