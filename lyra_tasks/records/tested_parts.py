"""Find the test run in which a part of a set, such as a stage or the checks of a group, has passed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.digests import file_sha256, hex_part
from lyra_tasks.records.evidence import Evidence
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.record import DirectoryName, Record, read_valid_record, write_record
from lyra_tasks.records.recorded_test import EVIDENCE_FILE_NAME, TESTED_EVENT, RecordedTest

_FILE_NAME = "parts.json"


class PartPointers(Record):
    """The test runs, by the names of their directories, whose results can be used again: by the key of the part."""

    schema_: Literal["lyra.tested-parts/1"] = Field(default="lyra.tested-parts/1", alias="schema")
    directories: dict[str, DirectoryName]


class TestedParts:
    """The parts that have passed in the test runs below a directory, whose digests the journal names."""

    __test__ = False

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._directory = directory
        self._journal = journal

    def find_runs(self, keys: Iterable[str]) -> dict[str, RecordedTest]:
        """Return the test runs in which parts of a set, such as a stage, have passed, by the keys of the parts.

        Evidence that the journal does not vouch for counts as none.
        """
        pointers = read_valid_record(self._path, PartPointers)
        names = {key: pointers.directories[key] for key in keys if key in pointers.directories} if pointers else {}
        runs = {name: self._open_run(self._directory / name) for name in set(names.values())}
        found = {key: runs.get(name) for key, name in names.items()}
        return {key: recorded for key, recorded in found.items() if recorded is not None}

    def _open_run(self, directory: Path) -> RecordedTest | None:
        path = directory / EVIDENCE_FILE_NAME
        evidence = read_valid_record(path, Evidence)
        if evidence is None:
            return None
        digest = f"sha256:{file_sha256(path)}"
        for _, entry in self._journal.find_backwards(TESTED_EVENT):
            if entry.run == evidence.run and entry.data.get("evidence") == digest:
                files = entry.data.get("files")
                named = files.items() if isinstance(files, dict) else ()
                return RecordedTest(directory, evidence, {name: hex_part(str(value)) for name, value in named})
        return None

    def point_to(self, evidence: Evidence, directory: Path) -> None:
        """Make a run the one whose results of its parts are used again. The caller holds the lock."""
        keys = {*evidence.check_keys.values(), *evidence.group_keys.values()}
        pointers = read_valid_record(self._path, PartPointers)
        kept = {key: name for key, name in (pointers.directories if pointers else {}).items() if key not in keys}
        existing = {name for name in set(kept.values()) if (self._directory / name).is_dir()}
        directories = {key: name for key, name in kept.items() if name in existing}
        document = PartPointers(directories={**directories, **dict.fromkeys(sorted(keys), directory.name)})
        write_record(self._path, document)

    @property
    def _path(self) -> Path:
        return self._directory / _FILE_NAME
