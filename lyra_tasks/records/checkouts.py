"""The checkouts that have a state folder on this machine: whose it is, under which names one was known, who else is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.records.journal import Entry, Journal
from lyra_tasks.records.store import Record, read_record, write_record
from lyra_tasks.run import Paths

_FILE = "checkout.json"
_MOVABLE = (Path("/media"), Path("/mnt"), Path("/run/media"), Path("/Volumes"))
_FIXED = Path("/etc/fstab")


class CheckoutRecord(Record):
    """Whose a state folder is."""

    schema_: Literal["lyra.checkout/1"] = Field(default="lyra.checkout/1", alias="schema")
    root: str


@dataclass(frozen=True)
class Checkout:
    """A state folder and its journal; `root` is None where it was not noted down."""

    project_id: str
    state: Path
    root: Path | None

    @property
    def journal(self) -> Journal:
        """Its journal."""
        return Journal(self.state / "journal.jsonl")

    @property
    def is_gone(self) -> bool:
        """Whether the checkout was deleted or moved away, or its disk is not there; not where that cannot be known."""
        return self.root is not None and is_gone(self.root)

    @property
    def doubt(self) -> str:
        """Why a checkout that is gone may only be out of reach: on a disk that is not mounted now. Empty if it is not.

        Where a disk belongs is an empty folder, below one for such places, or named in the list of file systems.
        """
        if self.root is None:
            return ""
        try:
            place = next(each for each in self.root.parents if each.exists())
            disk = next(each for each in (place, *place.parents) if each.is_mount())
            empty = not any(place.iterdir())
        except OSError as error:
            return f"{error.filename} cannot be looked into"
        if any(self.root.is_relative_to(each) for each in _fixed_places()):
            return f"a disk of {_FIXED} belongs there, which is not mounted"
        if any(self.root.is_relative_to(each) and not disk.is_relative_to(each) for each in _MOVABLE):
            return "disks that come and go are mounted there"
        return f"{place} is empty, as where a disk is not mounted" if empty else ""


def is_gone(root: Path) -> bool:
    """Whether there is no such folder; False where that cannot be known.

    `Path.exists` is no answer: what it makes of a folder that it may not look into depends on the version of Python.
    """
    try:
        root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def note_checkout(paths: Paths) -> None:
    """Write down which checkout a state folder belongs to."""
    file, record = paths.state / _FILE, CheckoutRecord(root=str(paths.root))
    try:
        known = read_record(file, CheckoutRecord)
    except PreconditionError:
        known = None
    if known != record:
        write_record(file, record)


def former(paths: Paths) -> list[Checkout]:
    """The state folders that this very checkout had while the project was called otherwise."""
    return [each for each in _all(paths) if _place(each.project_id) == _place(paths.project_id)]


def others(paths: Paths) -> list[tuple[Checkout, ...]]:
    """All other checkouts, each with the state folders that it had under its project's names."""
    found: dict[str, list[Checkout]] = {}
    for each in _all(paths):
        if _place(each.project_id) != _place(paths.project_id):
            found.setdefault(_place(each.project_id), []).append(each)
    return [tuple(each) for each in found.values()]


def history(journals: Iterable[Journal]) -> Iterator[Entry]:
    """The entries of several journals of one checkout, in the order of time."""
    return heapq.merge(*(each.entries() for each in journals), key=lambda entry: entry.at)


def _all(paths: Paths) -> Iterator[Checkout]:
    for state in sorted(paths.state.parent.iterdir()) if paths.state.parent.is_dir() else ():
        if state.name != paths.project_id and (state / "journal.jsonl").is_file():
            try:
                record = read_record(state / _FILE, CheckoutRecord)
            except PreconditionError:
                record = None
            yield Checkout(state.name, state, Path(record.root) if record else None)


def _place(project_id: str) -> str:
    """The part of a project id that stands for the folder, whatever the project is called."""
    return project_id.rpartition("-")[2]


def _fixed_places() -> Iterator[Path]:
    """Where the system's own list of file systems puts one that is not mounted now."""
    try:
        lines = _FIXED.read_text(errors="replace").splitlines()
    except OSError:
        return
    for fields in (line.split() for line in lines if not line.lstrip().startswith("#")):
        if len(fields) > 1 and fields[1].startswith("/") and not Path(fields[1]).is_mount():
            yield Path(fields[1])
