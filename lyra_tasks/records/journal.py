"""The journal of a checkout: append-only JSON lines, each with the hash of the previous one.

An intent is written before its effect, so that everything a crash leaves behind is known by name. An entry counts only
in the one spelling that Lyra writes, so its hash covers every byte of its line. A head file next to the journal holds
number and hash of the last entry, so that entries missing at the end are detected, too.

A chain without a key shows damage and careless edits: whoever may write both files can compute all hashes anew. What
was promoted by then is compared with the entries in the bundles (`overview/journal_check.py`).
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lyra_tasks.digests import canonical_json, sha256_hex
from lyra_tasks.documents import parse_foreign_json, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import sync_directory, sync_to_disk

JOURNAL_SCHEMA = "lyra.journal/1"
_INITIAL_HASH = "0" * 64
_ENTRIES_MISSING = "entries-missing"
_HEAD_LOST = "head-lost"
_MAX_SEQ = 10**18
_HEAD_FORMAT = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")


class _Head(NamedTuple):
    """Number and hash of the last entry known to be written; `problem` says why they are unknown."""

    seq: int
    hash: str
    problem: str = ""


@dataclass(frozen=True)
class JournalEntry:
    """An entry of the journal; `data` depends on the event."""

    seq: int
    at: str
    run: str
    event: str
    data: dict[str, Any] = field(default_factory=dict)
    prev: str = _INITIAL_HASH
    hash: str = ""


class Journal:
    """The journal of a checkout; several processes may append at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, run: str, event: str, **data: Any) -> JournalEntry:
        """Append an event durably and return its entry."""
        return self.extend(run, [(event, data)])[0]

    def extend(self, run: str, events: Sequence[tuple[str, dict[str, Any]]]) -> list[JournalEntry]:
        """Append several events with one disk sync and return their entries.

        A torn last line is removed first; that, a lost head file and entries missing at the end are recorded as well.
        """
        if not events:
            return []
        with self._open_locked() as descriptor:
            seq, prev, torn_length = _read_last_line(descriptor)
            head = self._read_head()
            if head.problem == "missing" and not seq and not torn_length:
                # Before the first entry, so that a journal without a head is never taken for a new one.
                head = self._create_head()
            repairs: list[tuple[str, dict[str, Any]]] = []
            if torn_length:
                repairs.append(("repaired", {"bytes": torn_length}))
            if head.problem:
                repairs.append((_HEAD_LOST, {"state": head.problem}))
            if head.seq > seq:
                repairs.append((_ENTRIES_MISSING, {"first": seq + 1, "last": head.seq}))
            entries: list[JournalEntry] = []
            for number, (event, data) in enumerate([*repairs, *events], start=seq + 1):
                entries.append(_seal_entry(number, run, event, data, entries[-1].hash if entries else prev))
            remaining = b"".join(_encode_line(entry) for entry in entries)
            while remaining:
                # a nearly full disk may accept a part and fail only at the next call
                remaining = remaining[os.write(descriptor, remaining) :]
            sync_to_disk(descriptor, times_matter=False)
            self._write_head(entries[-1].seq, entries[-1].hash)
        return entries[len(repairs) :]

    def entries(self, start: int = 0) -> Iterator[JournalEntry]:
        """Yield the readable entries from a byte offset on, oldest first."""
        for _, _, entry in self._parse_lines(start):
            if entry is not None:
                yield entry

    def read_recent(self, max_bytes: int = 1 << 18) -> list[JournalEntry]:
        """Return the readable entries within the last `max_bytes`, oldest first."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                start = file.seek(max(end - max_bytes, 0))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        # the first line is complete only at the beginning of the file
        entries = (_parse_line(line) for line in lines[1 if start else 0 :])
        return [entry for entry in entries if entry is not None]

    @property
    def size(self) -> int:
        """Return the size of the journal in bytes."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def find_backwards(self, event: str) -> Iterator[tuple[int, JournalEntry]]:
        """Yield the entries of one event with their byte offsets, newest first, without parsing the others."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        marker, end = canonical_json({"event": event})[1:-1].encode(), len(data)
        while (position := data.rfind(marker, 0, end)) >= 0:
            start = data.rfind(b"\n", 0, position) + 1
            entry = _parse_line(data[start : data.find(b"\n", position)])
            if entry is not None and entry.event == event:
                yield start, entry
            end = start

    def find_problems(self) -> list[str]:
        """Return the problems of the hash chain: entries edited, removed, reordered or unreadable."""
        problems = []
        prev, seq, lines = _INITIAL_HASH, 0, 0
        head = self._read_head()  # read first, since other processes may be writing
        for number, line, entry in self._parse_lines():
            lines = number
            if entry is None:
                problems.append(f"line {number}: not a journal entry")
                continue
            if entry.hash != _hash_entry(entry):
                problems.append(f"line {number}: edited (its hash does not match)")
            elif line + b"\n" != _encode_line(entry):
                problems.append(f"line {number}: edited (repeated keys, spaces or another spelling)")
            elif entry.prev != prev or entry.seq != seq + 1:
                problems.append(f"line {number}: does not follow the previous line (removed or reordered lines)")
            if loss := _describe_recorded_loss(entry):
                problems.append(f"line {number}: {loss}")
            if entry.seq == head.seq and entry.hash != head.hash:
                problems.append(f"line {number}: differs from the last entry written there")
            prev, seq = entry.hash, entry.seq
        if seq < head.seq and not problems:
            problems.append(f"after line {lines}: the entries {seq + 1} to {head.seq} are missing")
        if head.problem == "damaged" or (head.problem and lines):
            problems.append(f"{self.head_file}: {head.problem}, so entries may be missing after line {lines}")
        return problems

    @property
    def head_file(self) -> Path:
        """Return the path of the head file."""
        return self.path.with_suffix(".head")

    def _create_head(self) -> _Head:
        """Write the head of an empty journal, durably: a later one only overwrites it."""
        self._write_head(0, _INITIAL_HASH, sync=True)
        sync_directory(self.path.parent)
        return _Head(0, _INITIAL_HASH)

    def _write_head(self, seq: int, digest: str, *, sync: bool = False) -> None:
        """Write the head file, after the entry itself; a head left behind by a crash is valid."""
        data = f"{seq:020d} {digest}\n".encode()
        descriptor = os.open(self.head_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
            if sync:
                sync_to_disk(descriptor)
        finally:
            os.close(descriptor)

    def _read_head(self) -> _Head:
        try:
            with self.head_file.open("rb") as file:
                match = _HEAD_FORMAT.fullmatch(file.read(128))
        except FileNotFoundError:
            return _Head(0, "", "missing")
        return _Head(int(match[1]), match[2].decode()) if match else _Head(0, "", "damaged")

    def _parse_lines(self, start: int = 0) -> Iterator[tuple[int, bytes, JournalEntry | None]]:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for number, line in enumerate(lines[:-1], start=1):
            yield number, line, _parse_line(line)

    @contextmanager
    def _open_locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        finally:
            os.close(descriptor)


def get_current_user() -> str:
    """Return the name of the current user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _seal_entry(seq: int, run: str, event: str, data: dict[str, Any], prev: str) -> JournalEntry:
    entry = JournalEntry(seq, datetime.now(UTC).isoformat(timespec="milliseconds"), run, event, data, prev)
    return replace(entry, hash=_hash_entry(entry))


def _hash_entry(entry: JournalEntry) -> str:
    body = [JOURNAL_SCHEMA, entry.seq, entry.at, entry.run, entry.event, entry.data, entry.prev]
    return sha256_hex(_encode(body))


def _describe_recorded_loss(entry: JournalEntry) -> str:
    """Return what was missing when an entry about a loss was written, or "" for other entries."""
    if entry.event == _ENTRIES_MISSING:
        first, last = entry.data.get("first"), entry.data.get("last")
        return f"the entries {first} to {last} before it were missing when it was written"
    if entry.event == _HEAD_LOST:
        state = entry.data.get("state")
        return f"the head file was {state} when it was written, so entries before it may be missing"
    return ""


def _encode(value: object) -> bytes:
    """Encode as canonical JSON; bytes of a command line that are not UTF-8 become JSON escapes."""
    return canonical_json(value).encode("utf-8", "backslashreplace")


def _encode_line(entry: JournalEntry) -> bytes:
    return _encode({"schema": JOURNAL_SCHEMA, **entry.__dict__}) + b"\n"


def _parse_line(line: bytes) -> JournalEntry | None:
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


def _read_last_line(descriptor: int) -> tuple[int, str, int]:
    """Return number and hash of the last complete entry and the length of a torn line, which is removed."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    tail, position = b"", end
    while position > 0 and tail.count(b"\n") < 2:
        step = min(8192, position)
        position -= step
        tail = os.pread(descriptor, step, position) + tail
    complete_length = tail.rfind(b"\n") + 1
    torn_length = len(tail) - complete_length
    if torn_length:
        os.ftruncate(descriptor, end - torn_length)
    lines = tail[:complete_length].split(b"\n")[:-1]
    if not lines:
        return 0, _INITIAL_HASH, torn_length
    entry = _parse_line(lines[-1])
    if entry is None:
        return end, sha256_hex(lines[-1]), torn_length
    return entry.seq, entry.hash, torn_length
