"""Sizes of images and layers, and what is new since the previous version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.platforms import variant_keys

_MIN_WIDTH_PERCENT = 0.4  # a layer of a few bytes is still visible


@dataclass(frozen=True)
class LayerRow:
    """A layer; `start` and `width` in percent of the drawing."""

    number: int
    digest: str
    size: str
    unpacked: str
    is_known: bool
    start: float
    width: float


@dataclass(frozen=True)
class ImageSizes:
    """An image for one platform; `change` compares its size with the previous version, if any."""

    name: str
    reference: str
    platform: str
    services: str
    size: str
    change: str
    new_bytes: str
    previous_width: float
    previous_size: str
    layer_sizes: tuple[str, ...]
    layers: tuple[LayerRow, ...]
    identity: Mapping[str, str]


def measure_images(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> tuple[ImageSizes, ...]:
    """Return the images of a bundle; a layer is known if any image of the previous version has it."""
    previous_images = {image["name"]: image for image in previous.get("images", ())}
    known = _layer_digests(previous)
    widest = max(map(_layers_size, [*manifest["images"], *previous_images.values()]), default=0) or 1
    archives = {archive["platform"]: archive for archive in manifest["archives"]}
    builds = variant_keys([(image["name"], image["platform"]) for image in manifest["images"]])
    return tuple(
        _measure_image(
            build,
            image,
            archives[image["platform"]],
            previous_images.get(build),
            known,
            widest,
            is_compared=bool(previous_images),
        )
        for build, image in zip(builds, manifest["images"], strict=True)
    )


def count_new_bytes(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> int:
    """Return the bytes of layers that the previous version does not have; shared layers count once."""
    known = _layer_digests(previous)
    layers = {layer["digest"]: layer["size"] for image in manifest["images"] for layer in image["layers"]}
    return sum(size for digest, size in layers.items() if digest not in known)


def _layer_digests(previous: Mapping[str, Any]) -> set[str]:
    return {layer["digest"] for image in previous.get("images", ()) for layer in image["layers"]}


def _layers_size(image: Mapping[str, Any]) -> int:
    return sum(layer["size"] for layer in image["layers"])


def _measure_image(
    build: str,
    image: Mapping[str, Any],
    archive: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
    known: set[str],
    widest: int,
    *,
    is_compared: bool,
) -> ImageSizes:
    rows: list[LayerRow] = []
    start = 0.0
    for number, layer in enumerate(image["layers"], start=1):
        width = max(layer["size"] / widest * 100, _MIN_WIDTH_PERCENT)
        rows.append(
            LayerRow(
                number=number,
                digest=layer["digest"],
                size=console.format_bytes(layer["size"]),
                unpacked=console.format_bytes(layer["unpacked_size"]),
                is_known=layer["digest"] in known,
                start=round(start, 2),
                width=round(width, 2),
            )
        )
        start += width
    new_size = sum(layer["size"] for layer in image["layers"] if layer["digest"] not in known)
    previous_size = _layers_size(previous) if previous else 0
    return ImageSizes(
        name=build,
        reference=image["references"][0],
        platform=image["platform"],
        services=", ".join(image["services"]),
        size=console.format_bytes(_layers_size(image)),
        change=_describe_change(image, previous) if is_compared else "",
        new_bytes=f"{console.format_bytes(new_size)} in new layers" if new_size else "no new layer",
        previous_width=round(previous_size / widest * 100, 2),
        previous_size=console.format_bytes(previous_size),
        layer_sizes=tuple(f"{row.size}{' new' if is_compared and not row.is_known else ''}" for row in rows),
        layers=tuple(rows),
        identity={
            "archive": archive["file"],
            "archive sha256": archive["sha256"],
            "config digest": image["config_digest"],
            "manifest digest": image["manifest_digest"],
            **_describe_origin(image.get("origin")),
            **{f"base {name}": digest for name, digest in sorted(image["bases"].items())},
        },
    )


def _describe_origin(origin: Mapping[str, Any] | None) -> dict[str, str]:
    return {"origin": origin["reference"], "origin digest": origin["digest"]} if origin else {}


def _describe_change(image: Mapping[str, Any], previous: Mapping[str, Any] | None) -> str:
    if previous is None:
        return "new image"
    difference = _layers_size(image) - _layers_size(previous)
    if not difference:
        return "same size as before"
    return f"{console.format_bytes(abs(difference))} {'larger' if difference > 0 else 'smaller'} than before"
