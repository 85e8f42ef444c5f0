"""What was built: one record per image and platform, in the state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.records.record import Record, read_record, write_record

Digest = str


class ImageRecord(Record):
    """An image as it came out of a build; digests identify it, the reference is only a label."""

    schema_: Literal["lyra.image/1"] = Field(default="lyra.image/1", alias="schema")
    image: str
    reference: str
    engine: str = Field(description="id of the engine that holds it")
    image_id: Digest = Field(description="what that engine calls it")
    config_digest: Digest
    manifest_digest: Digest | None = Field(description="None on a classic image store")
    diff_ids: list[Digest]
    platform: str
    size: int
    commit: str
    dirty: bool
    version: str
    run: str
    built_at: str
    inputs: dict[str, str] = Field(description="hash of context, Dockerfile, args, target, bases")
    bases: dict[str, str] = Field(description="FROM reference -> digest it was pinned to")


class ImageStore:
    """The image records of one checkout."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "images"

    def read(self, image: str, platform: str) -> ImageRecord | None:
        """The record of the last build of `image` for `platform`, or None."""
        return read_record(self._path(image, platform), ImageRecord)

    def write(self, record: ImageRecord) -> None:
        """Keep `record` as the last build of its image and platform."""
        write_record(self._path(record.image, record.platform), record)

    def _path(self, image: str, platform: str) -> Path:
        return self._directory / f"{image}@{platform.replace('/', '-')}.json"


class SecretFinding(Record):
    """A declared secret that an image holds: which one, in which form, where; never its value."""

    secret: str
    encoding: str
    location: str


class ImageScan(Record):
    """What the rules need to know of one image; `question` is a digest of everything that was asked for."""

    schema_: Literal["lyra.image-scan/1"] = Field(default="lyra.image-scan/1", alias="schema")
    config_digest: str
    query_digest: str
    setuid_programs: dict[str, str] = Field(
        description="setuid and setgid programs of the project's own layers -> mode"
    )
    volume_owners: dict[str, str] = Field(description="folders of volumes -> UID:GID")
    programs_by_architecture: dict[str, int] = Field(description="architecture -> how many programs are for it")
    secrets: list[SecretFinding]
    secret_like_names: list[str] = Field(description="ENV and ARG that are named like secrets and have a value")
    tokens: list[str] | None = Field(description="what has the shape of a token; None if nothing looked for it")


class ScanStore:
    """The scans of one checkout, the last one of each image for each platform (`config.platforms`)."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "scans"

    def read(self, image: str, config_digest: str, query_digest: str) -> ImageScan | None:
        """The scan of this very image for this very question; None if there is none, or none that can be used."""
        try:
            scan = read_record(self._path(image), ImageScan)
        except PreconditionError:
            return None
        is_current = scan is not None and (scan.config_digest, scan.query_digest) == (config_digest, query_digest)
        return scan if is_current else None

    def write(self, image: str, scan: ImageScan) -> None:
        """Keep `scan` as the last one of `image`."""
        write_record(self._path(image), scan)

    def _path(self, image: str) -> Path:
        return self._directory / f"{image.replace('/', '-')}.json"
