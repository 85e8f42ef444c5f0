"""The state directories of all checkouts on this machine."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.records.record import Record, read_valid_record, write_record

_RECORD_FILE_NAME = "checkout.json"
_REMOVABLE_MOUNT_DIRECTORIES = (Path("/media"), Path("/mnt"), Path("/run/media"), Path("/Volumes"))
_FSTAB = Path("/etc/fstab")


class CheckoutRecord(Record):
    """The checkout that a state directory belongs to."""

    schema_: Literal["lyra.checkout/1"] = Field(default="lyra.checkout/1", alias="schema")
    root: str = Field(pattern=r"^/[^\x00]*$")


@dataclass(frozen=True)
class Checkout:
    """A state directory; `root` is None if the checkout was not recorded."""

    project_id: str
    state: Path
    root: Path | None

    @property
    def directory_key(self) -> str:
        """Return the part of the project id that is the same under earlier project names."""
        return _directory_key(self.project_id)

    @property
    def journal(self) -> Journal:
        """Return the journal of the checkout."""
        return Journal(self.state / "journal.jsonl")

    @property
    def is_missing(self) -> bool:
        """Return whether the checkout is known to be missing: deleted, moved or on an unmounted disk."""
        return self.root is not None and is_directory_missing(self.root)

    @property
    def unmounted_reason(self) -> str:
        """Return why a missing checkout may be on an unmounted disk, or an empty string."""
        if self.root is None:
            return ""
        try:
            existing_parent = next(parent for parent in (self.root, *self.root.parents) if parent.exists())
            mount_point = next(
                directory for directory in (existing_parent, *existing_parent.parents) if directory.is_mount()
            )
            is_empty = not any(existing_parent.iterdir())
        except OSError as error:
            return f"{error.filename} cannot be read"
        if any(self.root.is_relative_to(path) for path in _list_unmounted_fstab_paths()):
            return f"{_FSTAB} names a file system there that is not mounted"
        if any(
            self.root.is_relative_to(directory) and not mount_point.is_relative_to(directory)
            for directory in _REMOVABLE_MOUNT_DIRECTORIES
        ):
            return "removable disks are mounted there"
        return f"{existing_parent} is empty, like an unused mount point" if is_empty else ""


def is_directory_missing(root: Path) -> bool:
    """Return whether a directory is known to be missing.

    `Path.exists` treats permission errors differently from one Python version to another.
    """
    try:
        root.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def record_checkout(paths: Paths) -> None:
    """Record which checkout a state directory belongs to."""
    file, record = paths.state / _RECORD_FILE_NAME, CheckoutRecord(root=str(paths.root))
    if read_valid_record(file, CheckoutRecord) != record:
        write_record(file, record)


def list_former_states(paths: Paths) -> list[Checkout]:
    """Return the state directories of this checkout under earlier project names."""
    return [state for state in _list_other_states(paths) if state.directory_key == _directory_key(paths.project_id)]


def list_other_checkouts(paths: Paths) -> list[tuple[Checkout, ...]]:
    """Return the other checkouts, each with all its state directories."""
    checkouts: dict[str, list[Checkout]] = {}
    for state in _list_other_states(paths):
        if state.directory_key != _directory_key(paths.project_id):
            checkouts.setdefault(state.directory_key, []).append(state)
    return [tuple(states) for states in checkouts.values()]


def merge_journals(journals: Iterable[Journal]) -> Iterator[JournalEntry]:
    """Merge the entries of several journals in time order."""
    return heapq.merge(*(journal.entries() for journal in journals), key=lambda entry: entry.at)


def _list_other_states(paths: Paths) -> Iterator[Checkout]:
    for state in sorted(paths.state.parent.iterdir()) if paths.state.parent.is_dir() else ():
        if state.name != paths.project_id and (state / "journal.jsonl").is_file():
            record = read_valid_record(state / _RECORD_FILE_NAME, CheckoutRecord)
            yield Checkout(state.name, state, Path(record.root) if record else None)


def _directory_key(project_id: str) -> str:
    """Return the part of a project id that depends on the directory, not on the project's name."""
    return project_id.rpartition("-")[2]


def _list_unmounted_fstab_paths() -> Iterator[Path]:
    """Yield the mount points in fstab that are not mounted."""
    try:
        lines = _FSTAB.read_text(errors="replace").splitlines()
    except OSError:
        return
    for fields in (line.split() for line in lines if not line.lstrip().startswith("#")):
        if len(fields) > 1 and fields[1].startswith("/") and not Path(fields[1]).is_mount():
            yield Path(fields[1])
