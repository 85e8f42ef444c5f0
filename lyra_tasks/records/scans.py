"""What was seen in an image: one record per image in the state folder, so that an unchanged one is not read again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.records.store import Record, read_record, write_record


class SecretSeen(Record):
    """A declared secret that an image holds: which one, in which form, where; never its value."""

    secret: str
    form: str
    place: str


class ImageScan(Record):
    """What the rules need to know of one image; `question` is a digest of everything that was asked for."""

    schema_: Literal["lyra.image-scan/1"] = Field(default="lyra.image-scan/1", alias="schema")
    config_digest: str
    question: str
    special: dict[str, str] = Field(description="setuid and setgid programs of the project's own layers -> mode")
    owners: dict[str, str] = Field(description="folders of volumes -> UID:GID")
    programs: dict[str, int] = Field(description="architecture -> how many programs are for it")
    secrets: list[SecretSeen]
    secret_names: list[str] = Field(description="ENV and ARG that are named like secrets and have a value")
    tokens: list[str] | None = Field(description="what has the shape of a token; None if nothing looked for it")


class ScanStore:
    """The scans of one checkout, the last one of each image for each platform (`config.platforms`)."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "scans"

    def read(self, image: str, config_digest: str, question: str) -> ImageScan | None:
        """The scan of this very image for this very question; None if there is none, or none that can be used."""
        try:
            scan = read_record(self._path(image), ImageScan)
        except PreconditionError:
            return None
        fits = scan is not None and (scan.config_digest, scan.question) == (config_digest, question)
        return scan if fits else None

    def write(self, image: str, scan: ImageScan) -> None:
        """Keep `scan` as the last one of `image`."""
        write_record(self._path(image), scan)

    def _path(self, image: str) -> Path:
        return self._folder / f"{image.replace('/', '-')}.json"
