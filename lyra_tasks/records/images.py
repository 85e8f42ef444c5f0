"""Records of built images and of the scans of their content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.records.record import Record, read_record, read_valid_record, write_record


class ImageRecord(Record):
    """A built image, identified by its digests; the reference is only a label."""

    schema_: Literal["lyra.image/1"] = Field(default="lyra.image/1", alias="schema")
    image: str
    reference: str
    engine: str = Field(description="id of the engine")
    image_id: str = Field(description="id of the image in that engine")
    config_digest: str
    manifest_digest: str | None = Field(description="None on a classic image store")
    diff_ids: list[str]
    platform: str
    size: int
    commit: str
    dirty: bool
    version: str
    run: str
    built_at: str
    inputs: dict[str, str] = Field(description="hash of context, Dockerfile, args, target, bases")
    bases: dict[str, str] = Field(description="FROM reference -> pinned digest")


class ImageStore:
    """The image records of a checkout."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "images"

    def read(self, image: str, platform: str) -> ImageRecord | None:
        """Return the record of the latest build of `image` for `platform`, or None."""
        return read_record(self._path(image, platform), ImageRecord)

    def write(self, record: ImageRecord) -> None:
        """Store the record of the latest build of its image and platform."""
        write_record(self._path(record.image, record.platform), record)

    def _path(self, image: str, platform: str) -> Path:
        return self._directory / f"{image}@{platform.replace('/', '-')}.json"


class SecretFinding(Record):
    """A declared secret found in an image, without its value."""

    secret: str
    encoding: str
    location: str


class ImageScan(Record):
    """The result of scanning an image; `query_digest` is a hash of what the scan looked for."""

    schema_: Literal["lyra.image-scan/1"] = Field(default="lyra.image-scan/1", alias="schema")
    config_digest: str
    query_digest: str
    setuid_programs: dict[str, str] = Field(description="setuid and setgid programs in the project's layers -> mode")
    volume_owners: dict[str, str] = Field(description="directory of a volume -> UID:GID")
    programs_by_architecture: dict[str, int] = Field(description="architecture -> number of programs")
    secrets: list[SecretFinding]
    secret_like_names: list[str] = Field(description="ENV and ARG with a value and a name like a secret's")
    tokens: list[str] | None = Field(description="strings that look like tokens; None if not scanned")


class ScanStore:
    """The latest scan of each image and platform of a checkout."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "scans"

    def read(self, image: str, config_digest: str, query_digest: str) -> ImageScan | None:
        """Return the scan of this image for this query, or None."""
        scan = read_valid_record(self._path(image), ImageScan)
        is_current = scan is not None and (scan.config_digest, scan.query_digest) == (config_digest, query_digest)
        return scan if is_current else None

    def write(self, image: str, scan: ImageScan) -> None:
        """Store the latest scan of `image`."""
        write_record(self._path(image), scan)

    def _path(self, image: str) -> Path:
        return self._directory / f"{image.replace('/', '-')}.json"
