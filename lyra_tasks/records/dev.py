"""The development lab of a checkout: which run it is, where its services answer, what was carried into its volumes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.records.record import Record, read_record, write_record


class UploadedFile(Record):
    """A file or symbolic link as it was carried in: the checkout's size and time stamp, and a digest of the content."""

    kind: Literal["file", "link"]
    size: int
    mtime_ns: int
    mode: int
    digest: str


class UploadedFiles(Record):
    """What was carried from a checkout into the source volume of one service, by path below the image's context."""

    schema_: Literal["lyra.dev-source/1"] = Field(default="lyra.dev-source/1", alias="schema")
    files: dict[str, UploadedFile] = Field(default_factory=dict)


class DevSource(Record):
    """A source volume: where it is mounted, which folder of the checkout it mirrors, and who owns what is in it."""

    volume: str
    path: str
    context: str = Field(description="below the project")
    uid: int
    gid: int


class DevService(Record):
    """A container of the lab; `ports` maps the names of its ports to published ones."""

    id: str
    ports: dict[str, int]
    source: DevSource | None
    is_developed: bool
    secret_variables: list[str]


class DevLab(Record):
    """The lab that `create` made last and nobody has stopped."""

    schema_: Literal["lyra.dev/1"] = Field(default="lyra.dev/1", alias="schema")
    run: str
    engine: str = Field(description="id of the engine that holds it")
    config: str = Field(description="hash of the services as the profile had them")
    holder: str = Field(description="id of the container that holds the volumes, or nothing")
    services: dict[str, DevService]


class DevStore:
    """The records of one checkout's development lab."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "dev"

    @property
    def images_directory(self) -> Path:
        """Where the records of development images lie: apart from those that are tested and promoted."""
        return self._directory

    @property
    def mounts_directory(self) -> Path:
        """Where configs and secrets lie that an old engine can mount only from here."""
        return self._directory / "mounts"

    @property
    def exists(self) -> bool:
        """Whether there is a lab."""
        return (self._directory / "dev.json").exists()

    def read(self) -> DevLab | None:
        """The lab, or None if there is none."""
        return read_record(self._directory / "dev.json", DevLab)

    def write(self, lab: DevLab) -> None:
        """Keep `lab` as the one that later words find."""
        write_record(self._directory / "dev.json", lab)

    def read_uploads(self, service: str) -> UploadedFiles:
        """What was carried into the volume of `service`."""
        return read_record(self._sources_directory / f"{service}.json", UploadedFiles) or UploadedFiles()

    def write_uploads(self, service: str, uploads: UploadedFiles) -> None:
        """Keep what was carried into the volume of `service`."""
        write_record(self._sources_directory / f"{service}.json", uploads)

    def delete_uploads(self, service: str) -> None:
        """Forget what was carried into a volume that is gone."""
        (self._sources_directory / f"{service}.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Forget the lab; the records of its images stay."""
        (self._directory / "dev.json").unlink(missing_ok=True)
        shutil.rmtree(self._sources_directory, ignore_errors=True)
        shutil.rmtree(self.mounts_directory, ignore_errors=True)

    @property
    def _sources_directory(self) -> Path:
        return self._directory / "sources"
