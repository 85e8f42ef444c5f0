"""How large the images are, layer by layer, and what of that is new since the version before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.platforms import keys_of

_NARROWEST = 0.4  # percent; a layer of a few bytes is still to be seen


@dataclass(frozen=True)
class LayerRow:
    """One layer: sizes in the archive and unpacked, `start` and `width` in percent of the drawing."""

    number: int
    digest: str
    size: str
    unpacked: str
    known: bool
    start: float
    width: float


@dataclass(frozen=True)
class ImageRow:
    """One image for one platform; `change` compares with the version before, and is empty where there is none."""

    name: str
    reference: str
    platform: str
    services: str
    size: str
    change: str
    new_bytes: str
    before: float
    layers: tuple[LayerRow, ...]
    identity: Mapping[str, str]


def image_rows(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> tuple[ImageRow, ...]:
    """Every image of a bundle, by name; a layer is known if any image of the version before has the same blob."""
    before = {each["name"]: each for each in previous.get("images", ())}
    known = _known(previous)
    totals = [sum(layer["size"] for layer in each["layers"]) for each in [*manifest["images"], *before.values()]]
    widest = max(totals, default=0) or 1
    builds = keys_of([(each["name"], each["platform"]) for each in manifest["images"]])
    return tuple(
        _image(build, each, before.get(build), known, widest, compared=bool(before))
        for build, each in zip(builds, manifest["images"], strict=True)
    )


def fresh_bytes(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> int:
    """Bytes of the layers that the version before had not; what images share counts once."""
    known = _known(previous)
    layers = {layer["digest"]: layer["size"] for each in manifest["images"] for layer in each["layers"]}
    return sum(size for digest, size in layers.items() if digest not in known)


def _known(previous: Mapping[str, Any]) -> set[str]:
    return {layer["digest"] for each in previous.get("images", ()) for layer in each["layers"]}


def _image(
    build: str,
    image: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    known: set[str],
    widest: int,
    *,
    compared: bool,
) -> ImageRow:
    rows: list[LayerRow] = []
    start = 0.0
    for number, layer in enumerate(image["layers"], start=1):
        width = max(layer["size"] / widest * 100, _NARROWEST)
        rows.append(
            LayerRow(
                number, layer["digest"], console.size(layer["size"]), console.size(layer["unpacked_size"]),
                layer["digest"] in known, round(start, 2), round(width, 2),
            )
        )  # fmt: skip
        start += width
    fresh = sum(layer["size"] for layer in image["layers"] if layer["digest"] not in known)
    old = sum(layer["size"] for layer in before["layers"]) if before else 0
    return ImageRow(
        name=build,
        reference=image["references"][0],
        platform=image["platform"],
        services=", ".join(image["services"]),
        size=console.size(image["size"]),
        change=_change(image, before) if compared else "",
        new_bytes=f"{console.size(fresh)} in new layers" if fresh else "no new layer",
        before=round(old / widest * 100, 2),
        layers=tuple(rows),
        identity={
            "archive": image["file"],
            "archive sha256": image["sha256"],
            "config digest": image["config_digest"],
            "manifest digest": image["manifest_digest"],
            **{f"base {name}": digest for name, digest in sorted(image["bases"].items())},
        },
    )


def _change(image: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    if before is None:
        return "an image that is new"
    difference = sum(layer["size"] for layer in image["layers"]) - sum(layer["size"] for layer in before["layers"])
    if not difference:
        return "as large as before"
    return f"{console.size(abs(difference))} {'more' if difference > 0 else 'less'} than before"
