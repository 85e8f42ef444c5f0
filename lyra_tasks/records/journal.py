"""The journal: append-only, one JSON line per event, each line carrying the hash of the one before it.

An intent is written before its effect, so that whatever a crash leaves behind is known by name (DESIGN: ownership).
Beside the journal lies its head: number and hash of the last line, so that lines missing at the end are found too.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lyra_tasks.files import sync
from lyra_tasks.records.store import canonical

SCHEMA = "lyra.journal/1"
_START = "0" * 64
_LOST = "lost"


@dataclass(frozen=True)
class Entry:
    """One line of the journal; `data` is the event's own part."""

    seq: int
    at: str
    run: str
    event: str
    data: dict[str, Any] = field(default_factory=dict)
    prev: str = _START
    hash: str = ""


class Journal:
    """The journal of one checkout; any number of processes may append at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, run: str, event: str, **data: Any) -> Entry:
        """Add one event, durably, and return it."""
        return self.extend(run, [(event, data)])[0]

    def extend(self, run: str, events: Sequence[tuple[str, dict[str, Any]]]) -> list[Entry]:
        """Add several events with one wait for the disk; a torn last line is cut off first.

        That, and lines that are missing at the end, are recorded too. No events are no line, and no wait.
        """
        if not events:
            return []
        with self._writer() as handle:
            seq, prev, torn = _last(handle)
            notes: list[tuple[str, dict[str, Any]]] = []
            if torn:
                notes.append(("repaired", {"bytes": torn}))
            if (written := self._read_head()[0]) > seq:
                notes.append((_LOST, {"first": seq + 1, "last": written}))
            events = [*notes, *events]
            entries = []
            for event, data in events:
                seq += 1
                entry = _sealed(seq, run, event, data, prev)
                prev = entry.hash
                entries.append(entry)
            rest = b"".join(_line(entry) for entry in entries)
            while rest:
                # a disk that is nearly full takes a part, and refuses the rest at the next call
                rest = rest[os.write(handle, rest) :]
            sync(handle, os.fdatasync)
            if entries:
                self._write_head(entries[-1])
        return entries[len(notes) :]

    def entries(self, begin: int = 0) -> Iterator[Entry]:
        """Every readable entry from a byte on, oldest first; what cannot be read is `problems()`'s affair."""
        for _, entry in self._parsed(begin):
            if entry is not None:
                yield entry

    def newest(self, size: int = 1 << 18) -> list[Entry]:
        """The readable entries within the last `size` bytes, oldest first: as quick however long the history is."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                begin = file.seek(max(end - size, 0))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        # the first line is whole only where the file begins
        found = (_parse(line) for line in lines[1 if begin else 0 :])
        return [entry for entry in found if entry is not None]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def told_last(self, event: str) -> Iterator[tuple[int, Entry]]:
        """The entries of one event, newest first, each with the byte where it begins; all else is not read."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        sign, end = canonical({"event": event})[1:-1].encode(), len(data)
        while (found := data.rfind(sign, 0, end)) >= 0:
            begin = data.rfind(b"\n", 0, found) + 1
            entry = _parse(data[begin : data.find(b"\n", found)])
            if entry is not None and entry.event == event:
                yield begin, entry
            end = begin

    def problems(self) -> list[str]:
        """What is wrong with the chain: lines edited, removed, reordered or unreadable. Empty for a sound journal."""
        found = []
        prev, seq, lines = _START, 0, 0
        head = self._read_head()  # first, since others may be writing
        for number, entry in self._parsed():
            lines = number
            if entry is None:
                found.append(f"line {number}: not a journal entry")
                continue
            if entry.hash != _digest(entry):
                found.append(f"line {number}: edited (its hash does not match)")
            elif entry.prev != prev or entry.seq != seq + 1:
                found.append(f"line {number}: does not follow the line before it (removed or reordered lines)")
            if entry.event == _LOST:
                first, last = entry.data.get("first"), entry.data.get("last")
                found.append(
                    f"line {number}: when it was written, the entries {first} to {last} were missing before it"
                )
            if entry.seq == head[0] and entry.hash != head[1]:
                found.append(f"line {number}: is not what was written there last")
            prev, seq = entry.hash, entry.seq
        if seq < head[0] and not found:
            found.append(f"after line {lines}: the entries {seq + 1} to {head[0]} are missing")
        return found

    @property
    def head(self) -> Path:
        """The file that says what the last line is."""
        return self.path.with_suffix(".head")

    def _write_head(self, entry: Entry) -> None:
        """After the line itself: a crash in between leaves a head that is behind, and that is no fault."""
        handle = os.open(self.head, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, f"{entry.seq:020d} {entry.hash}\n".encode(), 0)
        finally:
            os.close(handle)

    def _read_head(self) -> tuple[int, str]:
        """Number and hash of the last line that is known to have been written; nothing if that is not known."""
        try:
            number, _, digest = self.head.read_text().strip().partition(" ")
        except (FileNotFoundError, UnicodeDecodeError):
            return 0, ""
        return (int(number), digest) if number.isdecimal() and digest else (0, "")

    def _parsed(self, begin: int = 0) -> Iterator[tuple[int, Entry | None]]:
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for number, line in enumerate(lines[:-1], start=1):
            yield number, _parse(line)

    @contextmanager
    def _writer(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            os.close(handle)


def who() -> str:
    """The user on whose behalf a run is made."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _sealed(seq: int, run: str, event: str, data: dict[str, Any], prev: str) -> Entry:
    entry = Entry(seq, datetime.now(UTC).isoformat(timespec="milliseconds"), run, event, data, prev)
    return Entry(entry.seq, entry.at, run, event, data, prev, _digest(entry))


def _digest(entry: Entry) -> str:
    body = [SCHEMA, entry.seq, entry.at, entry.run, entry.event, entry.data, entry.prev]
    return hashlib.sha256(_encoded(body)).hexdigest()


def _encoded(value: object) -> bytes:
    """Canonical JSON, in which bytes of a command line that are no UTF-8 stand as JSON's own escapes."""
    return canonical(value).encode("utf-8", "backslashreplace")


def _line(entry: Entry) -> bytes:
    return _encoded({"schema": SCHEMA, **entry.__dict__}) + b"\n"


def _parse(line: bytes) -> Entry | None:
    try:
        document = json.loads(line)
        if document.pop("schema") != SCHEMA:
            return None
        entry = Entry(**document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (entry.at, entry.run, entry.event, entry.prev, entry.hash)
    whole = isinstance(entry.seq, int) and isinstance(entry.data, dict) and all(isinstance(each, str) for each in texts)
    return entry if whole else None


def _last(handle: int) -> tuple[int, str, int]:
    """Sequence number and hash of the last whole line, after cutting off a torn one (whose length is returned)."""
    end = os.lseek(handle, 0, os.SEEK_END)
    tail, position = b"", end
    while position > 0 and tail.count(b"\n") < 2:
        step = min(8192, position)
        position -= step
        tail = os.pread(handle, step, position) + tail
    whole = tail.rfind(b"\n") + 1
    torn = len(tail) - whole
    if torn:
        os.ftruncate(handle, end - torn)
    lines = tail[:whole].split(b"\n")[:-1]
    if not lines:
        return 0, _START, torn
    entry = _parse(lines[-1])
    if entry is None:
        return end, hashlib.sha256(lines[-1]).hexdigest(), torn
    return entry.seq, entry.hash, torn
