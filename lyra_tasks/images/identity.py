"""What an image is, whatever store it came from: config, manifest, layers, platform."""

from __future__ import annotations

from dataclasses import dataclass


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
