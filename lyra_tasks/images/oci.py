"""The JSON documents of image archives: strict reading, and writing in one canonical form."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from lyra_tasks.errors import BundleError

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_MEDIA_TYPES = frozenset({INDEX_MEDIA_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"})

NAME_ANNOTATION = "io.containerd.image.name"
TAG_ANNOTATION = "org.opencontainers.image.ref.name"

MAX_DOCUMENT_BYTES = 4 * 1024**2

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
T = TypeVar("T")


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Descriptor(_Document):
    """A reference to a blob: what it is, its digest, its size in bytes."""

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
    diff_ids: list[Digest]


class ImageConfig(_Document):
    """What an archive needs of an image config: the platform, and what the layers unpack to."""

    os: str
    architecture: str
    variant: str = ""
    rootfs: RootFs

    @property
    def platform(self) -> str:
        """`os/arch`, and `/variant` where there is one."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class SavedImage(_Document):
    """One entry of `manifest.json`, the format of `docker save`."""

    config: str = Field(alias="Config")
    repo_tags: list[str] | None = Field(default=None, alias="RepoTags")
    layers: list[str] = Field(alias="Layers")


class LayoutDocument(_Document):
    """`oci-layout`."""

    version: str = Field(alias="imageLayoutVersion", pattern=r"^1\.0\.0$")


def parse_document(data: bytes, model: type[T], where: str) -> T:
    """`data` as a `kind`; BundleError naming `where` if it is not JSON, repeats a key or lacks what `kind` needs."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise BundleError(f"{where}: {place or 'document'}: {problem['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not valid JSON: {error}") from error


def sha256_digest(data: bytes) -> str:
    """`sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated!r} is there twice")
    return value


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(frozen=True)
class Layer:
    """One layer: its blob as it is shipped (`digest`, `size`) and what is in it (`diff_id`, `unpacked_size`); bytes."""

    media_type: str
    digest: str
    size: int
    diff_id: str
    unpacked_size: int


@dataclass(frozen=True)
class ImageIdentity:
    """The names under which stores know one image; digests are `sha256:…`, the platform is `os/arch[/variant]`."""

    config_digest: str
    manifest_digest: str
    platform: str
    layers: tuple[Layer, ...]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed layers, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def unpacked_size(self) -> int:
        """Bytes of all layers, uncompressed."""
        return sum(layer.unpacked_size for layer in self.layers)
