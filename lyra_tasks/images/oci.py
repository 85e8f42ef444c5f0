"""Models of OCI and Docker image documents, their strict parsing, and the identity of an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lyra_tasks.config.values import Digest
from lyra_tasks.digests import hex_part
from lyra_tasks.documents import parse_json, translate_failures
from lyra_tasks.errors import BundleError

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_MEDIA_TYPES = frozenset({INDEX_MEDIA_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"})

NAME_ANNOTATION = "io.containerd.image.name"
TAG_ANNOTATION = "org.opencontainers.image.ref.name"

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
DOCKER_MANIFEST_FILE = "manifest.json"
BLOBS_PREFIX = "blobs/sha256/"

_IMPLIED_VARIANT = re.compile(r"(?<=/arm64)/v8$|(?<=/amd64)/v1$")

MAX_DOCUMENT_BYTES = 4 * 1024**2

T = TypeVar("T")


def blob_name(digest: str) -> str:
    """Return the name of the file with the blob of this digest, in an archive or layout."""
    return BLOBS_PREFIX + hex_part(digest)


def normalize_platform(platform: str) -> str:
    """Return a platform as engines name it: `linux/arm64/v8`, which some images state, is `linux/arm64`."""
    return _IMPLIED_VARIANT.sub("", platform)


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)


class Descriptor(_Document):
    """A descriptor of a blob: its media type, digest and size in bytes."""

    media_type: str = Field(alias="mediaType")
    digest: Digest
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None


class ImageIndex(_Document):
    """An OCI image index: `index.json`, or a nested one."""

    manifests: list[Descriptor]


class ImageManifest(_Document):
    """An OCI (or Docker schema 2) image manifest."""

    media_type: str = Field(default=MANIFEST_MEDIA_TYPE, alias="mediaType")
    config: Descriptor
    layers: list[Descriptor]


class RootFs(_Document):
    """The layers in an image config."""

    diff_ids: list[Digest]


class ImageConfig(_Document):
    """The parts of an image config that archives need: the platform and the diff ids."""

    os: str
    architecture: str
    variant: str = ""
    rootfs: RootFs

    @property
    def platform(self) -> str:
        """Return the platform as `os/arch[/variant]`, without a variant that its architecture has anyway."""
        platform = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return normalize_platform(platform)


class SavedImage(_Document):
    """An entry of `manifest.json`, the format of `docker save`."""

    config: str = Field(alias="Config")
    repo_tags: list[str] | None = Field(default=None, alias="RepoTags")
    layers: list[str] = Field(alias="Layers")


class LayoutDocument(_Document):
    """The file `oci-layout`."""

    version: str = Field(alias="imageLayoutVersion", pattern=r"^1\.0\.0$")


def parse_document(data: bytes, model: type[T], where: str) -> T:
    """Parse JSON as a `model`; BundleError naming `where` if it is invalid, has duplicate keys or does not fit."""
    with translate_failures(lambda problem: BundleError(f"{where}: {problem}")):
        return TypeAdapter(model).validate_python(parse_json(data))


@dataclass(frozen=True)
class Layer:
    """A layer: its blob as shipped (`digest`, `size`) and unpacked (`diff_id`, `unpacked_size`), sizes in bytes."""

    media_type: str
    digest: str
    size: int
    diff_id: str
    unpacked_size: int


@dataclass(frozen=True)
class ImageIdentity:
    """The digests by which stores identify an image; the platform is `os/arch[/variant]`."""

    config_digest: str
    manifest_digest: str
    platform: str
    layers: tuple[Layer, ...]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Return the digests of the uncompressed layers, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def unpacked_size(self) -> int:
        """Return the size of all layers, uncompressed, in bytes."""
        return sum(layer.unpacked_size for layer in self.layers)
