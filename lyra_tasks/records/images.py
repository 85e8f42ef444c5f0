"""Records of built images and of the scans of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.digests import hex_part, sha256_digest
from lyra_tasks.documents import DocumentError, read_document
from lyra_tasks.files import write_file
from lyra_tasks.records.record import Record, has_other_schema, read_record, read_valid_record, write_record


class ImageOrigin(Record):
    """Where a third-party image comes from: its reference, the digest that it is locked to, and the kind of source."""

    reference: str
    digest: str
    source: Literal["image", "archive", "rootfs"]


class ImageRecord(Record):
    """A built or fetched image, identified by its digests; the reference is only a label."""

    schema_: Literal["lyra.image/3"] = Field(default="lyra.image/3", alias="schema")
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
    inputs: dict[str, str] = Field(description="hash of context, Dockerfile, args, target, bases; empty if fetched")
    bases: dict[str, str] = Field(description="FROM reference -> pinned digest")
    definition: str = Field(default="", description="hash of all that the builder was told; empty: build it always")
    origin: ImageOrigin | None = Field(default=None, description="None for an own image")


class ContextFiles(Record):
    """The digest of each path of a build context; a directory ends with a slash."""

    schema_: Literal["lyra.context-files/1"] = Field(default="lyra.context-files/1", alias="schema")
    files: dict[str, str]


class ImageStore:
    """The image records of a checkout, and the files that the images were built from."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "images"

    def read(self, image: str, platform: str) -> ImageRecord | None:
        """Return the record of the latest build of `image` for `platform`, or None; one of an older format is none."""
        path = self._path(image, platform)
        return None if has_other_schema(path, ImageRecord) else read_record(path, ImageRecord)

    def list_records(self) -> list[ImageRecord]:
        """Return the records of all images, also of those that are not configured any more."""
        records = (read_valid_record(path, ImageRecord) for path in sorted(self._directory.glob("*.json")))
        return [record for record in records if record is not None]

    def write(self, record: ImageRecord, files: Mapping[str, str] | None = None) -> None:
        """Store the latest record of an image and platform, for a build with the digests of its context's paths."""
        if files is not None:
            files_path = self._files_path(record.inputs["context"])
            if not files_path.exists():
                write_record(files_path, ContextFiles(files=dict(files)))
        write_record(self._path(record.image, record.platform), record)

    def read_files(self, context: str) -> Mapping[str, str] | None:
        """Return the paths of the context with this hash and their digests; None if they are not known any more."""
        record = read_valid_record(self._files_path(context), ContextFiles)
        return record.files if record is not None else None

    def write_document(self, data: bytes) -> None:
        """Keep the manifest or the config of a fetched image, which BuildKit would write differently."""
        write_file(self._document_path(sha256_digest(data)), data)

    def read_document(self, digest: str) -> bytes | None:
        """Return the document with this digest, or None if it is missing or damaged."""
        try:
            data = read_document(self._document_path(digest))
        except (OSError, DocumentError):
            return None
        return data if sha256_digest(data) == digest else None

    def remove_unused_files(self) -> None:
        """Remove the lists of files of contexts, and the documents, that no record names."""
        records = self.list_records()
        digests = {digest for record in records for digest in (record.config_digest, record.manifest_digest)}
        documents = {self._document_path(digest) for digest in digests if digest is not None}
        for path in self._directory.glob("documents/*.json"):
            if path not in documents:
                path.unlink(missing_ok=True)
        contexts = (record.inputs.get("context") for record in records)
        used = {self._files_path(context) for context in contexts if context is not None}
        for path in self._directory.glob("contexts/*.json"):
            if path not in used:
                path.unlink(missing_ok=True)

    def _document_path(self, digest: str) -> Path:
        return self._directory / "documents" / f"{hex_part(digest)}.json"

    def _files_path(self, context: str) -> Path:
        return self._directory / "contexts" / f"{context}.json"

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
    setuid_programs: dict[str, str] = Field(
        description="setuid and setgid programs in the project's layers, or in a third-party image -> mode"
    )
    volume_owners: dict[str, str] = Field(description="directory of a volume -> UID:GID MODE")
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
