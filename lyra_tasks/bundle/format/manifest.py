"""Models of `manifest.json`, and how a bundle's own JSON documents are written and read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lyra_tasks.bundle.format.layout import MANIFEST_FILE
from lyra_tasks.config.models import Name, Platform
from lyra_tasks.config.platforms import variant_keys
from lyra_tasks.config.values import Digest, Reference, Sha256Hex, UdpPort
from lyra_tasks.documents import DocumentError, read_document
from lyra_tasks.errors import BundleError
from lyra_tasks.files import format_json, write_file
from lyra_tasks.images.oci import ImageIdentity, Layer, parse_document
from lyra_tasks.records.images import ImageOrigin

Version = Annotated[
    str,
    StringConstraints(
        pattern=r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$",
        max_length=255,
    ),
]
Timestamp = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$", max_length=25
    ),
]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
ArchiveName = Annotated[str, StringConstraints(pattern=r"^images/[A-Za-z0-9][A-Za-z0-9._+-]*\.tar$")]
Count = Annotated[int, Field(ge=0)]

D = TypeVar("D", bound="Document")


class Document(BaseModel):
    """A JSON document of the bundle: strict, immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True)


class BundleSource(Document):
    """The commit that was built; `url` has no credentials and is empty without a remote."""

    url: str
    commit: Commit
    dirty: bool


class Requirements(Document):
    """Requirements on the production node."""

    platforms: list[Platform] = Field(min_length=1)
    min_engine: str


class ImageLayer(Document):
    """A layer blob in the archive; sizes in bytes."""

    media_type: str
    digest: Digest
    size: Count
    unpacked_size: Count


class BundledArchive(Document):
    """The archive with all images for one platform."""

    platform: Platform
    file: ArchiveName
    sha256: Sha256Hex
    size: Count


class BundledImage(Document):
    """An image for one platform, with all its references and digests; `origin` is None for own images."""

    name: Name
    services: list[Name]
    references: list[Reference] = Field(min_length=1)
    platform: Platform
    origin: ImageOrigin | None
    config_digest: Digest
    manifest_digest: Digest
    diff_ids: list[Digest]
    layers: list[ImageLayer]
    bases: dict[str, str] = Field(default={}, description="FROM reference -> digest it was pinned to")

    @model_validator(mode="after")
    def _one_diff_id_per_layer(self) -> BundledImage:
        if len(self.diff_ids) != len(self.layers):
            raise ValueError("expected one diff ID per layer")
        return self

    @property
    def identity(self) -> ImageIdentity:
        """Return the digests that `verify_archive` compares the archive with."""
        layers = tuple(
            Layer(layer.media_type, layer.digest, layer.size, diff_id, layer.unpacked_size)
            for layer, diff_id in zip(self.layers, self.diff_ids, strict=True)
        )
        return ImageIdentity(self.config_digest, self.manifest_digest, self.platform, layers)

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Return the compressed sizes of the layers in bytes by digest; a layer may occur twice."""
        return {layer.digest: layer.size for layer in self.layers}


class BundledService(Document):
    """A promoted service; `image` names one of the images."""

    name: Name
    image: str
    ports: dict[Name, int | UdpPort] = {}


class TestDouble(Document):
    """A service that only tests run, and the image that it runs there; it is not in the bundle."""

    __test__ = False

    service: Name
    reference: str


class TestSummary(Document):
    """The number of checks that passed and failed."""

    __test__ = False

    passed: Count
    failed: Count


class Manifest(Document):
    """The content of `manifest.json`."""

    schema_: Literal["lyra.promotion/2"] = Field(default="lyra.promotion/2", alias="schema")
    project: Name
    description: str
    version: Version
    is_snapshot: bool
    created: Timestamp = Field(description="time of the commit")
    source: BundleSource
    proxima: Requirements
    run: str
    set_digest: Digest
    archives: list[BundledArchive]
    images: list[BundledImage]
    services: list[BundledService]
    test_doubles: list[TestDouble]
    tests: TestSummary
    deviations: Count

    @property
    def images_by_build(self) -> dict[str, BundledImage]:
        """Return the images by build name: `web`, or `web@linux/arm64` if there are several platforms."""
        build_names = variant_keys([(image.name, image.platform) for image in self.images])
        return dict(zip(build_names, self.images, strict=True))

    @property
    def archives_by_file(self) -> dict[str, BundledArchive]:
        """Return the archives by file name."""
        return {archive.file: archive for archive in self.archives}

    @property
    def platforms(self) -> list[str]:
        """Return the platforms that every image exists for; nodes of other platforms are refused."""
        platforms_by_image: dict[str, set[str]] = {}
        for image in self.images:
            platforms_by_image.setdefault(image.name, set()).add(image.platform)
        return sorted(set.intersection(*platforms_by_image.values())) if platforms_by_image else []

    def images_for(self, platform: str) -> list[BundledImage]:
        """Return the images for a platform, which are those of its archive."""
        return [image for image in self.images if image.platform == platform]

    def archive_for(self, platform: str) -> BundledArchive:
        """Return the archive with the images for a platform."""
        return next(archive for archive in self.archives if archive.platform == platform)

    @model_validator(mode="after")
    def _one_archive_per_platform(self) -> Manifest:
        platforms = [archive.platform for archive in self.archives]
        if len(set(platforms)) != len(platforms) or set(platforms) != {image.platform for image in self.images}:
            raise ValueError("expected one archive for each platform of the images")
        if len(self.archives_by_file) != len(self.archives):
            raise ValueError("two platforms share an archive")
        return self

    @model_validator(mode="after")
    def _unique_images(self) -> Manifest:
        if len(self.images_by_build) != len(self.images):
            raise ValueError("duplicate image for one platform")
        references = [(image.platform, reference) for image in self.images for reference in image.references]
        if len(set(references)) != len(references):
            raise ValueError("two images for one platform share a reference")
        return self


def encode_document(document: Document) -> bytes:
    """Return the canonical JSON: sorted keys, two spaces, a final newline; raise BundleError if a reader rejects it."""
    value = document.model_dump(mode="json", by_alias=True)
    try:
        type(document).model_validate(value)
    except ValidationError as error:
        raise BundleError(f"Cannot write an invalid {type(document).__name__}") from error
    return format_json(value).encode()


class OtherFormatError(BundleError):
    """A document has the format of an earlier or a newer version of this program."""


def decode_document(data: bytes, document_type: type[D], where: str) -> D:
    """Parse a document; raise BundleError naming `where` and the key if it is invalid or not canonical.

    Raises OtherFormatError for a document that another version of this program has written.
    """
    _require_own_format(data, document_type, where)
    document = parse_document(data, document_type, where)
    if encode_document(document) != data:
        raise BundleError(f"{where}: not in canonical form")
    return document


def _require_own_format(data: bytes, document_type: type[Document], where: str) -> None:
    name, _, number = str(document_type.model_fields["schema_"].default).partition("/")
    schema = parse_document(data, dict[str, Any], where).get("schema")
    match = re.fullmatch(rf"{re.escape(name)}/([0-9]{{1,4}})", schema) if isinstance(schema, str) else None
    if match is None or match[1] == number:
        return
    if int(match[1]) < int(number):
        raise OtherFormatError(
            f"{where}: written by an earlier version of lyra-tasks ({schema})",
            hint="Its own receive.sh still verifies and loads it; for everything else, promote a new version",
        )
    raise OtherFormatError(
        f"{where}: written by a newer version of lyra-tasks ({schema})", hint="Install that version, then retry"
    )


def write_document(path: Path, document: Document) -> None:
    """Write `document` to `path` atomically and durably."""
    write_file(path, encode_document(document))


@dataclass(frozen=True)
class Bundle:
    """A promotion bundle on disk, whose manifest has been read."""

    directory: Path
    manifest: Manifest


def open_bundle(directory: Path) -> Bundle:
    """Read the manifest of the bundle in `directory`; raise BundleError if it is missing or damaged."""
    path = directory / MANIFEST_FILE
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"{directory}: not a promotion bundle, {MANIFEST_FILE} is missing",
            hint="Name the directory of one version, the one that contains manifest.json",
        )
    return Bundle(directory, decode_document(read_small_file(path), Manifest, str(path)))


def read_small_file(path: Path) -> bytes:
    """Return the content of a descriptive file; raise BundleError for a link or an implausible size."""
    if path.is_symlink():
        raise BundleError(f"{path}: not a regular file")
    try:
        return read_document(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: missing") from error
    except DocumentError as error:
        raise BundleError(f"{path}: {error}") from error


@contextmanager
def report_removed_bundle(directory: Path) -> Iterator[None]:
    """Raise BundleError if the bundle is removed while the block reads it, as promotions do with old snapshots."""
    try:
        yield
    except FileNotFoundError as error:
        if not Path(error.filename or "").is_relative_to(directory):
            raise  # It is the target that is missing: a medium was unplugged.
        raise BundleError(
            f"{directory}: removed while being read", hint="Run `bundle.list` to see the bundles, then retry"
        ) from error
