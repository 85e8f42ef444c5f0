"""The older entries of a journal, in compressed files next to it that are never changed."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.records.journal_entry import INITIAL_HASH, JournalEntry, find_line_problem, parse_line

_DIRECTORY = "journal-archive"
_NAME = re.compile(r"([0-9]{12})-([0-9]{12})-([0-9a-f]{64})\.jsonl\.gz")


@dataclass(frozen=True)
class ArchivedEntries:
    """A file with the entries from number `first` to `last`, whose hash is that of the last one."""

    path: Path
    first: int
    last: int
    hash: str

    def read_lines(self) -> list[bytes]:
        """Return the lines without their ends; raise PreconditionError if the file is damaged."""
        with translate_failures(lambda problem: PreconditionError(f"{self.path}: {problem}", hint="Restore it")):
            return gzip.decompress(self.path.read_bytes()).split(b"\n")[:-1]


def list_archives(journal: Path) -> list[ArchivedEntries]:
    """Return the archives of a journal, oldest first."""
    names = (_NAME.fullmatch(path.name) for path in sorted((journal.parent / _DIRECTORY).glob("*.jsonl.gz")))
    directory = journal.parent / _DIRECTORY
    return [ArchivedEntries(directory / name[0], int(name[1]), int(name[2]), name[3]) for name in names if name]


def write_archive(journal: Path, lines: Sequence[bytes], first: JournalEntry, last: JournalEntry) -> ArchivedEntries:
    """Write the archive of these lines, durably."""
    path = journal.parent / _DIRECTORY / f"{first.seq:012d}-{last.seq:012d}-{last.hash}.jsonl.gz"
    write_file(path, gzip.compress(b"\n".join(lines) + b"\n", mtime=0), 0o600)
    return ArchivedEntries(path, first.seq, last.seq, last.hash)


def check_archives(
    archives: Iterable[ArchivedEntries], start: tuple[int, str] = (0, INITIAL_HASH)
) -> tuple[list[str], dict[int, str]]:
    """Return the problems of the chain of all archives after the entry `start`, and the hashes of all entries."""
    problems, hashes = list[str](), dict[int, str]()
    seq, prev = start
    for archive in archives:
        try:
            lines = archive.read_lines()
        except PreconditionError as error:
            problems.append(error.message)
            seq, prev = archive.last, archive.hash
            continue
        for number, line in enumerate(lines, start=1):
            entry = parse_line(line)
            problem = "not a journal entry" if entry is None else find_line_problem(line, entry)
            if entry is not None:
                if not problem and (entry.seq, entry.prev) != (seq + 1, prev):
                    problem = "does not follow the previous line (removed or reordered lines)"
                seq, prev = entry.seq, entry.hash
                hashes[seq] = prev
            if problem:
                problems.append(f"{archive.path}: line {number}: {problem}")
        if (seq, prev) != (archive.last, archive.hash):
            problems.append(f"{archive.path}: its last entry is not the one that it is named for")
            seq, prev = archive.last, archive.hash
    return problems, hashes
