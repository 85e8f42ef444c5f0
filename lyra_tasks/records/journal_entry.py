"""The entries of a journal, and the one spelling in which each of them is a line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lyra_tasks.digests import canonical_json, sha256_hex
from lyra_tasks.documents import parse_foreign_json, translate_failures
from lyra_tasks.errors import PreconditionError

JOURNAL_SCHEMA = "lyra.journal/1"
INITIAL_HASH = "0" * 64
"""The `prev` of the first entry."""
_MAX_SEQ = 10**18


@dataclass(frozen=True)
class JournalEntry:
    """An entry of the journal; `data` depends on the event."""

    seq: int
    at: str
    run: str
    event: str
    data: dict[str, Any] = field(default_factory=dict)
    prev: str = INITIAL_HASH
    hash: str = ""


def seal_entry(seq: int, run: str, event: str, data: dict[str, Any], prev: str) -> JournalEntry:
    """Return an entry of this moment with its hash."""
    entry = JournalEntry(seq, datetime.now(UTC).isoformat(timespec="milliseconds"), run, event, data, prev)
    return replace(entry, hash=hash_entry(entry))


def hash_entry(entry: JournalEntry) -> str:
    """Return the hash of everything in an entry but its hash."""
    body = [JOURNAL_SCHEMA, entry.seq, entry.at, entry.run, entry.event, entry.data, entry.prev]
    return sha256_hex(_encode(body))


def encode_line(entry: JournalEntry) -> bytes:
    """Return the line of an entry, with its end."""
    return _encode({"schema": JOURNAL_SCHEMA, **entry.__dict__}) + b"\n"


def parse_line(line: bytes) -> JournalEntry | None:
    """Return the entry of a line without its end, or None if it is none."""
    try:
        with translate_failures(PreconditionError):
            document = parse_foreign_json(line)  # names of the command line need not be UTF-8
            if document.pop("schema") != JOURNAL_SCHEMA:
                return None
            entry = JournalEntry(**document)
    except PreconditionError:
        return None
    strings = (entry.at, entry.run, entry.event, entry.prev, entry.hash)
    has_valid_types = isinstance(entry.data, dict) and all(isinstance(string, str) for string in strings)
    return entry if has_valid_types and type(entry.seq) is int and 0 <= entry.seq <= _MAX_SEQ else None


def find_line_problem(line: bytes, entry: JournalEntry) -> str:
    """Return how a line differs from what Lyra wrote, or an empty string."""
    if entry.hash != hash_entry(entry):
        return "edited (its hash does not match)"
    if line + b"\n" != encode_line(entry):
        return "edited (repeated keys, spaces or another spelling)"
    return ""


def _encode(value: object) -> bytes:
    """Encode as canonical JSON; bytes of a command line that are not UTF-8 become JSON escapes."""
    return canonical_json(value).encode("utf-8", "backslashreplace")
