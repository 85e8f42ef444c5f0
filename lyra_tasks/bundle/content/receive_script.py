"""`receive.sh` with the values of one bundle or pack."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.bundle.format.pack import PackManifest
from lyra_tasks.config.deployment import compose_project

_BEGIN = "# >>> written by promote\n"
_END = "# <<< written by promote\n"


def render_receive_script(manifest: Manifest, pack: PackManifest | None = None) -> str:
    """Return the script for a bundle, or for a pack of it."""
    script = resources.files("lyra_tasks.bundle").joinpath("receive.sh").read_text(encoding="utf-8")
    head, _, rest = script.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    packed_archives = {archive.file: archive for archive in pack.archives} if pack else {}
    archives = [(archive, packed_archives.get(archive.file)) for archive in manifest.archives]
    values = {
        "project": manifest.project,
        "compose_project": compose_project(manifest.project),
        "version": manifest.version,
        "platforms": " ".join(manifest.platforms),
        "min_engine": manifest.proxima.min_engine,
        "since": (pack.since if pack else None) or "",
        "archives": _format_table(
            (archive.platform, archive.file, str((packed or archive).size)) for archive, packed in archives
        ),
        "required": _format_table(
            (archive.platform, image.reference, image.config_digest, image.manifest_digest)
            for archive, packed in archives
            if packed
            for image in packed.required_images
        ),
        "images": _format_table(
            line
            for archive, packed in archives
            for line in _image_lines(manifest.images_for(archive.platform), packed.omitted_layers if packed else ())
        ),
    }
    variables = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return f"{head}{_BEGIN}{variables}{_END}{tail}"


def _format_table(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(["", *map(" ".join, rows), ""])


def _image_lines(images: Sequence[BundledImage], omitted_layers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the fields of each image of an archive.

    The engine needs space for each unpacked layer; a shared layer is stored once and counts for the first image.
    """
    counted_layers = set(omitted_layers)
    for image in images:
        unpacked_sizes = {layer.digest: layer.unpacked_size for layer in image.layers}
        required_bytes = sum(size for digest, size in unpacked_sizes.items() if digest not in counted_layers)
        counted_layers |= unpacked_sizes.keys()
        yield (
            image.platform, str(required_bytes), image.config_digest, image.manifest_digest, *image.references,
        )  # fmt: skip
