"""The head file of a journal: number and hash of the last entry, by which entries missing at the end are detected."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from lyra_tasks.files import sync_directory, sync_to_disk
from lyra_tasks.records.journal_entry import INITIAL_HASH

_FORMAT = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")


class Head(NamedTuple):
    """Number and hash of the last entry known to be written; `problem` says why they are unknown."""

    seq: int
    hash: str
    problem: str = ""


def create_head(path: Path) -> Head:
    """Write the head of an empty journal, durably: a later one only overwrites it."""
    write_head(path, 0, INITIAL_HASH, sync=True)
    sync_directory(path.parent)
    return Head(0, INITIAL_HASH)


def write_head(path: Path, seq: int, digest: str, *, sync: bool = False) -> None:
    """Write the head file, after the entry itself; a head left behind by a crash is valid."""
    data = f"{seq:020d} {digest}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        if sync:
            sync_to_disk(descriptor)
    finally:
        os.close(descriptor)


def read_head(path: Path) -> Head:
    """Return the head, or one that says why it is unknown."""
    try:
        with path.open("rb") as file:
            match = _FORMAT.fullmatch(file.read(128))
    except FileNotFoundError:
        return Head(0, "", "missing")
    return Head(int(match[1]), match[2].decode()) if match else Head(0, "", "damaged")
