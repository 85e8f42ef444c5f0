"""Store the evidence of test runs: an immutable directory for each run, and a pointer from each set to its newest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lyra_tasks import console
from lyra_tasks.digests import file_sha256, hex_part, json_sha256, sha256_digest, sha256_hex
from lyra_tasks.documents import translate_failures
from lyra_tasks.files import STAGING_PREFIX, format_json, measure_size, walk_directory
from lyra_tasks.locks import directory_lock, file_lock
from lyra_tasks.records.evidence import EVIDENCE_DIRECTORIES, EVIDENCE_FILES, Evidence, SetKey
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.records.record import DirectoryName, Record, read_record, read_valid_record, write_record
from lyra_tasks.records.recorded_test import (
    EVIDENCE_FILE_NAME,
    IMMUTABLE_MODE,
    INPUT_PREFIX,
    INPUTS_DIRECTORY,
    TESTED_EVENT,
    RecordedTest,
    copy_hashed,
    disagreement,
    require_digest,
)
from lyra_tasks.records.retention import Limits, StoredItem, list_promoted_sets, select_expired
from lyra_tasks.records.tested_parts import TestedParts

EVIDENCE_DIRECTORY = "evidence"
"""Its name in a state directory."""
_SETS_DIRECTORY = "sets"
_LOCK_TIMEOUT_S = 60.0
_DEFAULT_LIMITS = Limits(50, 1024**3)


class SetPointer(Record):
    """The newest test run of a set, by the name of its directory."""

    schema_: Literal["lyra.tested-set/1"] = Field(default="lyra.tested-set/1", alias="schema")
    directory: DirectoryName


class EvidenceStore:
    """The evidence of a checkout, whose journal names the digests of every run.

    Runs beyond the limits are removed, except the newest one and those of sets with a bundle in `bundles`.
    """

    def __init__(
        self, state: Path, journal: Journal, limits: Limits | None = None, bundles: Path | None = None
    ) -> None:
        self._directory = state / EVIDENCE_DIRECTORY
        self._journal = journal
        self._limits = limits or _DEFAULT_LIMITS
        self._bundles = bundles
        self.parts = TestedParts(self._directory, journal)

    def read(self, key: SetKey) -> Evidence | None:
        """Return the latest evidence for a set, or None."""
        directory = self._find_directory(key)
        return read_record(directory / EVIDENCE_FILE_NAME, Evidence) if directory else None

    def latest(self) -> Evidence | None:
        """Return the latest evidence for any set, ignoring files of older schemas."""
        paths = self._directory.glob(f"*/{EVIDENCE_FILE_NAME}")
        results = [evidence for path in paths if (evidence := read_valid_record(path, Evidence))]
        return max(results, key=lambda evidence: (evidence.started_at, evidence.run), default=None)

    def find_recorded_test(self, key: SetKey) -> RecordedTest | None:
        """Return the newest test run of a set, or None.

        Raises StaleError, with the name of the file, if evidence, its files and the journal do not agree.
        """
        directory = self._find_directory(key)
        if directory is None:
            return None
        path = directory / EVIDENCE_FILE_NAME
        evidence = read_record(path, Evidence)
        if evidence is None:
            raise disagreement(path, "missing")
        entry = self._find_entry(key)
        if entry is None:
            raise disagreement(path, "the journal has no entry about it")
        with translate_failures(lambda problem: disagreement(path, f"the journal's entry is damaged: {problem}")):
            digests = {name: hex_part(str(digest)) for name, digest in dict(entry.data.get("files", {})).items()}
        recorded = RecordedTest(directory, evidence, digests)
        if problem := _find_entry_difference(evidence, entry, key, file_sha256(path)):
            raise disagreement(path, problem)
        _require_recorded_files(recorded)
        for name in evidence.part_hashes:
            if name.startswith(INPUT_PREFIX):
                recorded.read_input(name.removeprefix(INPUT_PREFIX))
        return recorded

    def record(self, evidence: Evidence, run_directory: Path, inputs: Iterable[bytes], **data: Any) -> None:
        """Store the evidence of a complete test run, journal it with `data`, and make it the newest of its set.

        Its files are copied from the run's directory; `inputs` are the bytes of the files that the set was hashed with.
        The oldest runs beyond the limits are removed, unless a promotion uses them.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with file_lock(self._directory / ".lock", resource="the evidence of this checkout", timeout=_LOCK_TIMEOUT_S):
            directory, digest, files = self._store(evidence, run_directory, inputs)
            self._journal.append(evidence.run, TESTED_EVENT, **data, evidence=digest, files=files)
            write_record(self._pointer_path(evidence.set), SetPointer(directory=directory.name))
            self._remove_oldest(directory)
            self.parts.point_to(evidence, directory)

    def _store(
        self, evidence: Evidence, run_directory: Path, inputs: Iterable[bytes]
    ) -> tuple[Path, str, dict[str, str]]:
        """Create the directory of a run; return it with the digest of the evidence and those of its files by name."""
        stage = Path(tempfile.mkdtemp(dir=self._directory, prefix=STAGING_PREFIX))
        try:
            names = [*EVIDENCE_FILES, *_list_files(run_directory, EVIDENCE_DIRECTORIES)]
            for name in names:
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
            files = {name: f"sha256:{copy_hashed(run_directory / name, stage / name)}" for name in names}
            (stage / INPUTS_DIRECTORY).mkdir()
            for content in inputs:
                _write_immutable(stage / INPUTS_DIRECTORY / sha256_hex(content), content)
            document = format_json(evidence.model_dump(mode="json", by_alias=True)).encode()
            _write_immutable(stage / EVIDENCE_FILE_NAME, document)
            number, directory = 1, self._directory / evidence.run
            while directory.exists():  # several tests of one command line
                number, directory = number + 1, self._directory / f"{evidence.run}.{number + 1}"
            stage.rename(directory)  # not synced: after a power failure, the digests in the journal do not match
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return directory, sha256_digest(document), files

    def _remove_oldest(self, newest: Path) -> None:
        """Remove the oldest runs, and pointers to removed runs. The caller holds the lock."""
        for leftover in self._directory.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        removed = []
        for run in self.find_expired(newest.name):
            with directory_lock(self._directory / run.name) as is_unused:
                if is_unused:
                    shutil.rmtree(self._directory / run.name, ignore_errors=True)
                    removed.append(run)
        if removed:
            size = console.format_bytes(sum(run.size for run in removed))
            console.info(
                f"Removed the evidence of {len(removed)} old test run(s) ({size}), by the limits of [resources]"
            )
        for path in (self._directory / _SETS_DIRECTORY).glob("*.json"):
            pointer = read_valid_record(path, SetPointer)
            if pointer is None or not (self._directory / pointer.directory).is_dir():
                path.unlink()

    def find_expired(self, newest: str = "") -> tuple[StoredItem, ...]:
        """Return the test runs beyond the limits; `newest` is the one that is kept in any case, by default the last."""
        runs = self.list_runs()
        newest = newest or max(runs, key=lambda run: run.used_ns, default=StoredItem("", 0, 0)).name
        return select_expired(runs, {newest, *self._list_promoted_runs()}, self._limits)

    def list_runs(self) -> list[StoredItem]:
        """Return the test runs whose evidence is stored, with its sizes."""
        found = self._directory.iterdir() if self._directory.is_dir() else ()
        paths = [path for path in found if path.is_dir() and path.name != _SETS_DIRECTORY]
        return [StoredItem(path.name, path.stat().st_mtime_ns, measure_size(path)) for path in paths]

    def _list_promoted_runs(self) -> Iterator[str]:
        """Yield the newest run of each set with a bundle."""
        for digest in list_promoted_sets(self._journal, self._bundles) if self._bundles is not None else ():
            pointer = read_valid_record(self._directory / _SETS_DIRECTORY / f"{digest}.json", SetPointer)
            if pointer is not None:
                yield pointer.directory

    def _find_directory(self, key: SetKey) -> Path | None:
        pointer = read_record(self._pointer_path(key), SetPointer)
        return self._directory / pointer.directory if pointer else None

    def _pointer_path(self, key: SetKey) -> Path:
        return self._directory / _SETS_DIRECTORY / f"{key.digest}.json"

    def _find_entry(self, key: SetKey) -> JournalEntry | None:
        """Return the journal's newest entry about a complete test run of a set."""
        for _, entry in self._journal.find_backwards(TESTED_EVENT):
            if entry.data.get("set") == key.digest and not entry.data.get("partial"):
                return entry
        return None


def _find_entry_difference(evidence: Evidence, entry: JournalEntry, key: SetKey, digest: str) -> str:
    """Return how evidence differs from the journal's newest entry about its set, or an empty string."""
    if evidence.run != entry.run:
        return f"of run {evidence.run}, but the journal's newest test of this set is run {entry.run}"
    if evidence.passed != entry.data.get("passed"):
        results = ["passed" if passed else "failed" for passed in (evidence.passed, entry.data.get("passed"))]
        return f"says {results[0]}, but the journal says {results[1]}"
    if entry.data.get("evidence") != f"sha256:{digest}":
        return "changed since the test: its digest is not the one in the journal"
    if evidence.set != key or (evidence.part_hashes and json_sha256(evidence.part_hashes) != key.effective_hash):
        return "of another set"
    if entry.data.get("checks") != {check.title: check.outcome for check in evidence.checks}:
        return "has other results of checks than the journal"
    return ""


def _require_recorded_files(recorded: RecordedTest) -> None:
    """Raise StaleError if a file of the evidence is missing, changed or extra."""
    directory = recorded.directory
    names = {name for name in EVIDENCE_FILES if (directory / name).is_file()}
    names.update(_list_files(directory, EVIDENCE_DIRECTORIES))
    for name in sorted(names ^ recorded.digests.keys()):
        raise disagreement(directory / name, "the journal does not name it" if name in names else "missing")
    for name, digest in recorded.digests.items():
        require_digest(name, file_sha256(directory / name), digest)


def _list_files(directory: Path, subdirectories: Iterable[str]) -> list[str]:
    """Return the names of the files in some subdirectories, which need not exist."""
    return sorted(
        (path / name).relative_to(directory).as_posix()
        for subdirectory in subdirectories
        if (directory / subdirectory).exists()
        for path, _, names in walk_directory(directory / subdirectory)
        for name in names
    )


def _write_immutable(path: Path, content: bytes) -> None:
    """Write a file that its owner can only read; two files with the same content share it."""
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), IMMUTABLE_MODE)
