"""The journal of a checkout: append-only JSON lines, each with the hash of the previous one.

An intent is written before its effect, so that everything a crash leaves behind is known by name. An entry counts only
in the one spelling that Lyra writes, so its hash covers every byte of its line. A head file next to the journal holds
number and hash of the last entry, so that entries missing at the end are detected, too.

A chain without a key shows damage and careless edits: whoever may write both files can compute all hashes anew. What
was promoted by then is compared with the entries in the bundles (`overview/journal_check.py`).

When there are many entries, the older ones move to compressed archives (`journal_archive.py`), as they are. What
something still needs of them also stays in the journal, so that nothing but the history reads the archives.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lyra_tasks.digests import canonical_json, sha256_hex
from lyra_tasks.files import sync_to_disk, write_file
from lyra_tasks.records.journal_archive import ArchivedEntries, check_archives, list_archives, write_archive
from lyra_tasks.records.journal_entry import (
    INITIAL_HASH,
    JournalEntry,
    encode_line,
    find_line_problem,
    parse_line,
    seal_entry,
)
from lyra_tasks.records.journal_head import create_head, read_head, write_head

_ENTRIES_MISSING = "entries-missing"
_HEAD_LOST = "head-lost"
_SHORTENED = "journal-shortened"
LASTING_EVENTS = frozenset({_ENTRIES_MISSING, _HEAD_LOST, _SHORTENED})
"""Events about the journal itself, which never leave it."""


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
            head = read_head(self.head_file)
            if head.problem == "missing" and not seq and not torn_length:
                # Before the first entry, so that a journal without a head is never taken for a new one.
                head = create_head(self.head_file)
            repairs: list[tuple[str, dict[str, Any]]] = []
            if torn_length:
                repairs.append(("repaired", {"bytes": torn_length}))
            if head.problem:
                repairs.append((_HEAD_LOST, {"state": head.problem}))
            if head.seq > seq:
                if (archives := self.archives) and archives[-1].last > seq:
                    seq, prev = archives[-1].last, archives[-1].hash
                repairs.append((_ENTRIES_MISSING, {"first": seq + 1, "last": head.seq}))
            entries: list[JournalEntry] = []
            for number, (event, data) in enumerate([*repairs, *events], start=seq + 1):
                entries.append(seal_entry(number, run, event, data, entries[-1].hash if entries else prev))
            remaining = b"".join(encode_line(entry) for entry in entries)
            while remaining:
                # a nearly full disk may accept a part and fail only at the next call
                remaining = remaining[os.write(descriptor, remaining) :]
            sync_to_disk(descriptor, times_matter=False)
            write_head(self.head_file, entries[-1].seq, entries[-1].hash)
        return entries[len(repairs) :]

    def entries(self, start: int = 0, *, key: str = "") -> Iterator[JournalEntry]:
        """Yield the readable entries from a byte offset on, oldest first; with `key`, few whose data lack it."""
        for _, _, entry in self._parse_lines(start, json.dumps(key).encode() if key else b""):
            if entry is not None:
                yield entry

    def recent_entries(self) -> Iterator[JournalEntry]:
        """Yield the readable entries that are in no archive, oldest first."""
        archived = self._last_archived
        return (entry for entry in self.entries() if entry.seq > archived)

    def all_entries(self, runs: Collection[str] = ()) -> Iterator[JournalEntry]:
        """Yield the readable entries, with those in archives, oldest first; with `runs` only theirs."""
        markers = [b'"run":"%s"' % run.encode() for run in runs]
        for archive in self.archives:
            lines = archive.read_lines()
            selected = [line for line in lines if not runs or any(marker in line for marker in markers)]
            yield from (entry for line in selected if (entry := parse_line(line)) and (not runs or entry.run in runs))
        yield from (entry for entry in self.recent_entries() if not runs or entry.run in runs)

    @property
    def archives(self) -> list[ArchivedEntries]:
        """Return the archives of the older entries, oldest first."""
        return list_archives(self.path)

    @property
    def _last_archived(self) -> int:
        archives = self.archives
        return archives[-1].last if archives else 0

    @property
    def recent_count(self) -> int:
        """Return how many entries are in no archive."""
        return self.last_seq - self._last_archived

    @property
    def last_seq(self) -> int:
        """Return the number of an entry that is certainly written, with all before it; 0 if that is unknown."""
        return read_head(self.head_file).seq

    def archive(self, is_needed: Callable[[JournalEntry], bool], max_recent: int) -> ArchivedEntries | None:
        """Move all entries but the newest `max_recent` to an archive, and return it; those that are needed also stay.

        None if there is nothing to move. A damaged journal stays as it is.
        """
        with self._open_locked() as descriptor:
            content = self.path.read_bytes()
            lines = content.split(b"\n")[:-1]
            entries = [parse_line(line) for line in lines]
            archives = self.archives
            seq, prev = (archives[-1].last, archives[-1].hash) if archives else (0, INITIAL_HASH)
            if not content.endswith(b"\n") or entries[-1] is None:
                return None
            last, moved, kept = entries[-1].seq - max_recent, list[tuple[bytes, JournalEntry]](), list[bytes]()
            for line, entry in zip(lines, entries, strict=True):
                if entry is None or find_line_problem(line, entry):
                    return None
                if seq < entry.seq <= last:
                    if (entry.seq, entry.prev) != (seq + 1, prev):
                        return None
                    seq, prev = entry.seq, entry.hash
                    moved.append((line, entry))
                if entry.seq > last or is_needed(entry):
                    kept.append(line)
            if not moved:
                return None
            archive = write_archive(self.path, [line for line, _ in moved], moved[0][1], moved[-1][1])
            write_file(self.path, b"".join(line + b"\n" for line in kept), os.fstat(descriptor).st_mode & 0o777)
            return archive

    def remove_archive(self, archive: ArchivedEntries, run: str) -> None:
        """Remove the oldest archive, and record what begins after it."""
        self.append(run, _SHORTENED, last=archive.last, hash=archive.hash)
        archive.path.unlink(missing_ok=True)

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
        entries = (parse_line(line) for line in lines[1 if start else 0 :])
        return [entry for entry in entries if entry is not None]

    def find_end(self, seq: int) -> int:
        """Return the byte offset behind the entry with this number; 0 if it is not here any more."""
        data, marker = self.path.read_bytes(), b',"seq":%d}\n' % seq
        position = data.rfind(marker)
        return position + len(marker) if position >= 0 else 0

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
            entry = parse_line(data[start : data.find(b"\n", position)])
            if entry is not None and entry.event == event:
                yield start, entry
            end = start

    def find_problems(self, *, archived: bool = False) -> list[str]:
        """Return the problems of the hash chain: entries edited, removed, reordered or unreadable.

        With `archived` also those of the archives, and entries here that are others there.
        """
        archives, lines = self.archives, 0
        prev, seq = INITIAL_HASH, 0
        problems, archived_hashes = check_archives(archives, self._find_start(archives)) if archived else ([], {})
        head = read_head(self.head_file)  # read first, since other processes may be writing
        for number, line, entry in self._parse_lines():
            lines = number
            if entry is None:
                problems.append(f"line {number}: not a journal entry")
                continue
            is_archived = bool(archives) and entry.seq <= archives[-1].last
            if archives and seq <= archives[-1].last < entry.seq:
                prev, seq = archives[-1].hash, archives[-1].last
            if problem := find_line_problem(line, entry):
                problems.append(f"line {number}: {problem}")
            elif entry.seq <= seq if is_archived else (entry.prev != prev or entry.seq != seq + 1):
                problems.append(f"line {number}: does not follow the previous line (removed or reordered lines)")
            elif archived_hashes.get(entry.seq, entry.hash) != entry.hash:
                problems.append(f"line {number}: differs from the archived entry {entry.seq}")
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

    def _find_start(self, archives: Sequence[ArchivedEntries]) -> tuple[int, str]:
        """Return number and hash of the entry before the oldest archive: those beyond a limit were removed."""
        for _, entry in self.find_backwards(_SHORTENED) if archives and archives[0].first > 1 else ():
            if entry.data.get("last") == archives[0].first - 1:
                return archives[0].first - 1, str(entry.data.get("hash"))
        return 0, INITIAL_HASH

    @property
    def first_seq(self) -> int:
        """Return the number of the oldest entry that was not removed by a limit."""
        archives = self.archives
        return self._find_start(archives)[0] + 1

    @property
    def head_file(self) -> Path:
        """Return the path of the head file."""
        return self.path.with_suffix(".head")

    def _parse_lines(self, start: int = 0, part: bytes = b"") -> Iterator[tuple[int, bytes, JournalEntry | None]]:
        """Yield the lines that contain `part`, with their numbers and entries."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for number, line in enumerate(lines[:-1], start=1):
            if part in line:
                yield number, line, parse_line(line)

    @contextmanager
    def _open_locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._open_for_appending()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            while not os.fstat(descriptor).st_nlink:  # another process archived entries meanwhile
                os.close(descriptor)
                descriptor = self._open_for_appending()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        finally:
            os.close(descriptor)

    def _open_for_appending(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def get_current_user() -> str:
    """Return the name of the current user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _describe_recorded_loss(entry: JournalEntry) -> str:
    """Return what was missing when an entry about a loss was written, or "" for other entries."""
    if entry.event == _ENTRIES_MISSING:
        first, last = entry.data.get("first"), entry.data.get("last")
        return f"the entries {first} to {last} before it were missing when it was written"
    if entry.event == _HEAD_LOST:
        state = entry.data.get("state")
        return f"the head file was {state} when it was written, so entries before it may be missing"
    return ""


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
        return 0, INITIAL_HASH, torn_length
    entry = parse_line(lines[-1])
    if entry is None:
        return end, sha256_hex(lines[-1]), torn_length
    return entry.seq, entry.hash, torn_length
