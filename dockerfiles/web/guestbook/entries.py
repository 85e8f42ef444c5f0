"""Entries of visitors: validation, and storage in one SQLite file."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

LONGEST_NAME = 40
LONGEST_MESSAGE = 280
KEPT = 10_000  # the volume is small: the oldest entries are deleted


class EntryError(ValueError):
    """The entry is invalid; the text is for the visitor."""


@dataclass(frozen=True)
class Entry:
    """An entry with its time in UTC."""

    name: str
    message: str
    time: str

    def document(self) -> dict[str, str]:
        """Return the entry for JSON."""
        return asdict(self)


def parse_entry(fields: object) -> Entry:
    """Return an entry from `name` and `message` of a form or JSON document; raise EntryError if they are invalid."""
    if not isinstance(fields, dict) or set(fields) != {"name", "message"}:
        raise EntryError("an entry has a name and a message, nothing else")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(_text("name", fields["name"], LONGEST_NAME), _text("message", fields["message"], LONGEST_MESSAGE), now)


def _text(label: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise EntryError(f"the {label} must be a text")
    text = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(text) <= longest:
        raise EntryError(f"the {label} must have 1 to {longest} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise EntryError(f"the {label} must be plain text on a single line")
    return text


class EntryStore:
    """Entries in an SQLite file; each call opens its own connection, so that any thread can call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries"
                " (id INTEGER PRIMARY KEY, name TEXT NOT NULL, message TEXT NOT NULL, time TEXT NOT NULL)"
            )

    def add(self, entry: Entry) -> None:
        """Store an entry and delete the oldest beyond `KEPT`; raise sqlite3.Error if disk or file do not allow it."""
        with self._connection() as connection:
            added = connection.execute(
                "INSERT INTO entries (name, message, time) VALUES (?, ?, ?)", (entry.name, entry.message, entry.time)
            )
            connection.execute("DELETE FROM entries WHERE id <= ?", ((added.lastrowid or 0) - KEPT,))

    def last(self, count: int) -> list[Entry]:
        """Return the newest entries, newest first."""
        with self._connection() as connection:
            rows = connection.execute("SELECT name, message, time FROM entries ORDER BY id DESC LIMIT ?", (count,))
            return [Entry(*row) for row in rows]

    def count(self) -> int:
        """Return the number of entries; also the cheapest test that the file is readable."""
        with self._connection() as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._file, timeout=2)
        try:
            with connection:
                yield connection
        finally:
            connection.close()
