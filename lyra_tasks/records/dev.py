"""Records of the development environment of a checkout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.records.record import Record, has_other_schema, read_record, write_record


class UploadedFile(Record):
    """An uploaded file or symbolic link: a digest of its content, and a stamp that every change of the file changes.

    The stamp is empty if the file had changed just before the upload.
    """

    kind: Literal["file", "link"]
    size: int
    stamp: str
    mode: int
    digest: str


class UploadedFiles(Record):
    """The files uploaded to the source volume of a service, by path below the image's context."""

    schema_: Literal["lyra.dev-source/2"] = Field(default="lyra.dev-source/2", alias="schema")
    files: dict[str, UploadedFile] = Field(default_factory=dict)


class DevSource(Record):
    """A source volume: its mount point, the directory it mirrors and the owner of its files."""

    volume: str
    path: str
    context: str = Field(description="below the project")
    uid: int
    gid: int


class DevService(Record):
    """A container of the environment; `ports` maps port names to published ports."""

    id: str
    ports: dict[str, int]
    source: DevSource | None
    is_developed: bool
    secret_variables: list[str]


class DevLab(Record):
    """The running development environment."""

    schema_: Literal["lyra.dev/1"] = Field(default="lyra.dev/1", alias="schema")
    run: str
    engine: str = Field(description="id of the engine")
    config: str = Field(description="hash of the services in the profile")
    holder: str = Field(description="id of the container that holds the volumes, or empty")
    services: dict[str, DevService]


class DevStore:
    """The records of a checkout's development environment."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "dev"
        self._file = self._directory / "dev.json"
        self._sources = self._directory / "sources"

    @property
    def images_directory(self) -> Path:
        """Return the directory of development image records, separate from those that are tested and promoted."""
        return self._directory

    @property
    def mounts_directory(self) -> Path:
        """Return the directory of configs and secrets that an old engine mounts from the host."""
        return self._directory / "mounts"

    @property
    def exists(self) -> bool:
        """Return whether an environment is recorded."""
        return self._file.exists()

    def read(self) -> DevLab | None:
        """Return the recorded environment, or None."""
        return read_record(self._file, DevLab)

    def write(self, lab: DevLab) -> None:
        """Record an environment."""
        write_record(self._file, lab)

    def read_uploads(self, service: str) -> UploadedFiles:
        """Return the files uploaded to the volume of a service; none if they were recorded in an older format."""
        path = self._sources / f"{service}.json"
        record = None if has_other_schema(path, UploadedFiles) else read_record(path, UploadedFiles)
        return record or UploadedFiles()

    def write_uploads(self, service: str, uploads: UploadedFiles) -> None:
        """Record the files uploaded to the volume of a service."""
        write_record(self._sources / f"{service}.json", uploads)

    def delete_uploads(self, service: str) -> None:
        """Delete the record of uploads to a volume."""
        (self._sources / f"{service}.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the environment's record, but keep those of its images."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self._sources, ignore_errors=True)
        shutil.rmtree(self.mounts_directory, ignore_errors=True)
