"""A recorded test run: its evidence, and its files, each of which must be the one that was recorded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.errors import StaleError
from lyra_tasks.files import display_path
from lyra_tasks.locks import directory_lock
from lyra_tasks.records.evidence import Evidence

TESTED_EVENT = "tested"
"""The event by which the journal names the digests of a run's evidence."""
INPUT_PREFIX = "file "
"""Prefix of the names of hashed files in `Evidence.part_hashes`."""
EVIDENCE_FILE_NAME = "evidence.json"
INPUTS_DIRECTORY = "inputs"
IMMUTABLE_MODE = 0o400
_BLOCK_BYTES = 1 << 20
_RERUN_HINT = "Run `test` again"


@dataclass(frozen=True)
class RecordedTest:
    """A test run whose evidence, files and journal entry agree; `digests` are by file name in its directory."""

    directory: Path
    evidence: Evidence
    digests: Mapping[str, str]

    def copy_file(self, name: str, target: Path) -> None:
        """Copy a file of the evidence; raise StaleError if it is not the one that was recorded."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with _name_missing_file(name, self.directory / name):
            digest = copy_hashed(self.directory / name, target, mode=0o644)
        require_digest(name, digest, self.digests[name])

    def is_intact(self, names: Iterable[str]) -> bool:
        """Return whether files of the evidence are those that were recorded."""
        try:
            return all(file_sha256(self.directory / name) == self.digests.get(name) for name in names)
        except OSError:
            return False

    def read_file(self, name: str) -> bytes:
        """Return the content of a file of the evidence; raise StaleError if it is not the one that was recorded."""
        with _name_missing_file(name, self.directory / name):
            content = (self.directory / name).read_bytes()
        require_digest(name, sha256_hex(content), self.digests.get(name, ""))
        return content

    def read_input(self, path: str) -> bytes:
        """Return the bytes of a project file as they were tested; raise StaleError if they are not stored."""
        digest = self.evidence.part_hashes[f"{INPUT_PREFIX}{path}"]
        stored = self.directory / INPUTS_DIRECTORY / digest
        with _name_missing_file(path, stored):
            content = stored.read_bytes()
        require_digest(path, sha256_hex(content), digest)
        return content

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from removing the evidence during the block."""
        with directory_lock(self.directory, is_shared=True, purpose="cleaning up"):
            yield


def copy_hashed(source: Path, target: Path, mode: int = IMMUTABLE_MODE) -> str:
    """Copy a file and return the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                digest.update(block)
                writer.write(block)
            with suppress(PermissionError):  # FAT has no modes
                os.fchmod(writer.fileno(), mode)
    except OSError as error:
        error.filename = error.filename or str(target)
        raise
    return digest.hexdigest()


@contextmanager
def _name_missing_file(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if error.filename != str(path):
            raise
        raise disagreement(path, f"missing ({name} as it was tested)") from error


def require_digest(name: str, digest: str, recorded_digest: str) -> None:
    """Raise StaleError if a stored file is not the one that was recorded."""
    if digest != recorded_digest:
        raise StaleError(
            f"{name}: its stored copy is not what was tested (sha256 {digest[:12]}, tested {recorded_digest[:12]})",
            hint=_RERUN_HINT,
        )


def disagreement(path: Path, problem: str) -> StaleError:
    """Return the error for a file of the evidence that does not agree with the journal."""
    return StaleError(f"Evidence disagrees: {display_path(path)}: {problem}", hint=_RERUN_HINT)
