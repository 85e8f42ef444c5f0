"""The checkouts that have a state folder on this machine: whose it is, under which names one was known, who else is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal, JournalEntry
from lyra_tasks.records.record import Record, read_record, write_record

_RECORD_FILE_NAME = "checkout.json"
_REMOVABLE_MOUNT_DIRECTORIES = (Path("/media"), Path("/mnt"), Path("/run/media"), Path("/Volumes"))
_FSTAB = Path("/etc/fstab")


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
    def is_missing(self) -> bool:
        """Whether the checkout was deleted or moved away, or its disk is not there; not where that cannot be known."""
        return self.root is not None and is_directory_missing(self.root)

    @property
    def unmounted_reason(self) -> str:
        """Why a checkout that is gone may only be out of reach: on a disk that is not mounted now. Empty if it is not.

        Where a disk belongs is an empty folder, below one for such places, or named in the list of file systems.
        """
        if self.root is None:
            return ""
        try:
            existing_parent = next(parent for parent in self.root.parents if parent.exists())
            mount_point = next(
                directory for directory in (existing_parent, *existing_parent.parents) if directory.is_mount()
            )
            is_empty = not any(existing_parent.iterdir())
        except OSError as error:
            return f"{error.filename} cannot be looked into"
        if any(self.root.is_relative_to(path) for path in _list_unmounted_fstab_paths()):
            return f"a disk of {_FSTAB} belongs there, which is not mounted"
        if any(
            self.root.is_relative_to(directory) and not mount_point.is_relative_to(directory)
            for directory in _REMOVABLE_MOUNT_DIRECTORIES
        ):
            return "disks that come and go are mounted there"
        return f"{existing_parent} is empty, as where a disk is not mounted" if is_empty else ""


def is_directory_missing(root: Path) -> bool:
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


def record_checkout(paths: Paths) -> None:
    """Write down which checkout a state folder belongs to."""
    file, record = paths.state / _RECORD_FILE_NAME, CheckoutRecord(root=str(paths.root))
    try:
        existing = read_record(file, CheckoutRecord)
    except PreconditionError:
        existing = None
    if existing != record:
        write_record(file, record)


def list_former_states(paths: Paths) -> list[Checkout]:
    """The state folders that this very checkout had while the project was called otherwise."""
    return [
        checkout
        for checkout in _list_other_states(paths)
        if _directory_key(checkout.project_id) == _directory_key(paths.project_id)
    ]


def list_other_checkouts(paths: Paths) -> list[tuple[Checkout, ...]]:
    """All other checkouts, each with the state folders that it had under its project's names."""
    checkouts: dict[str, list[Checkout]] = {}
    for state in _list_other_states(paths):
        if _directory_key(state.project_id) != _directory_key(paths.project_id):
            checkouts.setdefault(_directory_key(state.project_id), []).append(state)
    return [tuple(states) for states in checkouts.values()]


def merge_journals(journals: Iterable[Journal]) -> Iterator[JournalEntry]:
    """The entries of several journals of one checkout, in the order of time."""
    return heapq.merge(*(journal.entries() for journal in journals), key=lambda entry: entry.at)


def _list_other_states(paths: Paths) -> Iterator[Checkout]:
    for state in sorted(paths.state.parent.iterdir()) if paths.state.parent.is_dir() else ():
        if state.name != paths.project_id and (state / "journal.jsonl").is_file():
            try:
                record = read_record(state / _RECORD_FILE_NAME, CheckoutRecord)
            except PreconditionError:
                record = None
            yield Checkout(state.name, state, Path(record.root) if record else None)


def _directory_key(project_id: str) -> str:
    """The part of a project id that stands for the folder, whatever the project is called."""
    return project_id.rpartition("-")[2]


def _list_unmounted_fstab_paths() -> Iterator[Path]:
    """Where the system's own list of file systems puts one that is not mounted now."""
    try:
        lines = _FSTAB.read_text(errors="replace").splitlines()
    except OSError:
        return
    for fields in (line.split() for line in lines if not line.lstrip().startswith("#")):
        if len(fields) > 1 and fields[1].startswith("/") and not Path(fields[1]).is_mount():
            yield Path(fields[1])
