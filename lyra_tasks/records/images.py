"""What was built: one record per image and platform, in the state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.records.store import Record, read_record, write_record

Digest = str


class ImageRecord(Record):
    """An image as it came out of a build; digests identify it, the reference is only a label."""

    schema_: Literal["lyra.image/1"] = Field(default="lyra.image/1", alias="schema")
    image: str
    reference: str
    engine: str = Field(description="id of the engine that holds it")
    engine_id: Digest = Field(description="what that engine calls it")
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
        self._folder = state / "images"

    def read(self, image: str, platform: str) -> ImageRecord | None:
        """The record of the last build of `image` for `platform`, or None."""
        return read_record(self._path(image, platform), ImageRecord)

    def write(self, record: ImageRecord) -> None:
        """Keep `record` as the last build of its image and platform."""
        write_record(self._path(record.image, record.platform), record)

    def _path(self, image: str, platform: str) -> Path:
        return self._folder / f"{image}@{platform.replace('/', '-')}.json"
