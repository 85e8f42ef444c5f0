"""The root of a bundle's description, and the list of a project's bundles, as frozen models with one written form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lyra_tasks.config.models import Name, Platform
from lyra_tasks.config.platforms import variant_keys
from lyra_tasks.config.values import UdpPort
from lyra_tasks.errors import BundleError
from lyra_tasks.files import write_file
from lyra_tasks.images.oci import Digest, ImageIdentity, Layer, parse_document

Version = Annotated[
    str,
    StringConstraints(
        pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
    ),
]
Timestamp = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$", max_length=25)
]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ArchiveName = Annotated[str, StringConstraints(pattern=r"^images/[A-Za-z0-9][A-Za-z0-9._+-]*\.tar$")]
Count = Annotated[int, Field(ge=0)]

D = TypeVar("D", bound="Document")


class Document(BaseModel):
    """Something in the bundle: unknown keys are errors, values are what they are and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class BundleSource(Document):
    """Where the code came from; `url` without credentials, empty if the checkout has no remote."""

    url: str
    commit: Commit
    dirty: bool


class Requirements(Document):
    """What the production node must be able to run."""

    platforms: list[Platform] = Field(min_length=1)
    min_engine: str


class ImageLayer(Document):
    """A layer's blob in the archive; sizes are bytes."""

    media_type: str
    digest: Digest
    size: Count
    unpacked_size: Count


class BundledImage(Document):
    """One archive: the image in it under every name that a store may give it."""

    name: Name
    services: list[Name]
    references: list[str]
    file: ArchiveName
    sha256: Sha256
    size: Count
    platform: Platform
    config_digest: Digest
    manifest_digest: Digest
    diff_ids: list[Digest]
    layers: list[ImageLayer]
    bases: dict[str, str] = Field(default={}, description="FROM reference -> digest it was pinned to")

    @model_validator(mode="after")
    def _one_diff_id_per_layer(self) -> BundledImage:
        if len(self.diff_ids) != len(self.layers):
            raise ValueError("there must be one diff id per layer")
        return self

    @property
    def identity(self) -> ImageIdentity:
        """The image as `check_archive` expects it."""
        layers = tuple(
            Layer(layer.media_type, layer.digest, layer.size, diff_id, layer.unpacked_size)
            for layer, diff_id in zip(self.layers, self.diff_ids, strict=True)
        )
        return ImageIdentity(self.config_digest, self.manifest_digest, self.platform, layers)


class BundledService(Document):
    """A service in short; `image` names one of the images, or is a reference where `external` is true."""

    name: Name
    image: str
    is_third_party: bool
    ports: dict[Name, int | UdpPort] = {}


class TestSummary(Document):
    """How many checks passed and failed."""

    __test__ = False

    passed: Count
    failed: Count


class Manifest(Document):
    """`manifest.json`: what is promoted, where it comes from, what was tested."""

    schema_: Literal["lyra.promotion/1"] = Field(default="lyra.promotion/1", alias="schema")
    project: Name
    description: str
    version: Version
    is_snapshot: bool
    created: Timestamp = Field(description="time of the commit")
    source: BundleSource
    proxima: Requirements
    run: str
    set_digest: Digest
    images: list[BundledImage]
    services: list[BundledService]
    tests: TestSummary
    deviations: Count

    @property
    def images_by_build(self) -> dict[str, BundledImage]:
        """The images by what their builds are called: the name, or `web@linux/arm64` of one for several platforms."""
        keys = variant_keys([(image.name, image.platform) for image in self.images])
        return dict(zip(keys, self.images, strict=True))

    @property
    def platforms(self) -> list[str]:
        """Those that all images are there for: a node of another one is refused."""
        names = {image.name for image in self.images}
        image_names_by_platform: dict[str, set[str]] = {}
        for image in self.images:
            image_names_by_platform.setdefault(image.platform, set()).add(image.name)
        return sorted(
            platform for platform, available_images in image_names_by_platform.items() if available_images == names
        )

    @model_validator(mode="after")
    def _one_archive_per_image(self) -> Manifest:
        files = [image.file for image in self.images]
        if len(set(files)) != len(files):
            raise ValueError("two images name the same archive")
        if len(self.images_by_build) != len(self.images):
            raise ValueError("an image is there twice for the same platform")
        return self


class BundleEntry(Document):
    """A version in the list of a project's bundles."""

    version: Version
    created: Timestamp
    commit: Commit
    set_digest: Digest
    is_snapshot: bool


class BundleIndex(Document):
    """`index.json` of a project: its versions, newest first."""

    schema_: Literal["lyra.promotion-index/1"] = Field(default="lyra.promotion-index/1", alias="schema")
    project: Name
    versions: list[BundleEntry] = []

    @model_validator(mode="after")
    def _newest_first(self) -> BundleIndex:
        if self.versions != sorted(self.versions, key=_precedence, reverse=True):
            raise ValueError("versions must stand newest first")
        if len({entry.version for entry in self.versions}) != len(self.versions):
            raise ValueError("a version is there twice")
        return self

    def with_entry(self, entry: BundleEntry) -> BundleIndex:
        """The same list with `entry` in its place, instead of an older entry of the same version."""
        versions = [*self.without_versions(entry.version).versions, entry]
        return BundleIndex(project=self.project, versions=sorted(versions, key=_precedence, reverse=True))

    def without_versions(self, *versions: str) -> BundleIndex:
        """The same list without these versions."""
        return BundleIndex(
            project=self.project, versions=[entry for entry in self.versions if entry.version not in versions]
        )


def encode_document(document: Document) -> bytes:
    """The one written form: sorted keys, two spaces, a newline at the end; BundleError if a reader would refuse it."""
    value = document.model_dump(mode="json", by_alias=True)
    try:
        type(document).model_validate(value)
    except ValidationError as error:
        raise BundleError(f"a {type(document).__name__} would be written that cannot be read") from error
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def decode_document(data: bytes, document_type: type[D], where: str) -> D:
    """What `encode` wrote; BundleError naming `where` and the key if it is anything else."""
    document = parse_document(data, document_type, where)
    if encode_document(document) != data:
        raise BundleError(f"{where}: not written as this program writes it")
    return document


def write_document(path: Path, document: Document) -> None:
    """Replace `path` by `document`, atomically and durably."""
    write_file(path, encode_document(document))


def _precedence(entry: BundleEntry) -> Any:
    """Semantic precedence; what it does not order (build metadata) is ordered by time and text."""
    from semver import Version as Semantic

    return Semantic.parse(entry.version), entry.created, entry.version
