"""`receive.sh` with the values of one bundle or pack."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.bundle.format.pack import PackedArchive, PackManifest

_BEGIN = "# >>> written by promote\n"
_END = "# <<< written by promote\n"


def render_receive_script(manifest: Manifest, pack: PackManifest | None = None) -> str:
    """Return the script for a bundle, or for a pack of it."""
    script = resources.files("lyra_tasks.bundle").joinpath("receive.sh").read_text(encoding="utf-8")
    head, _, rest = script.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    archives_by_file = {archive.file: archive for archive in pack.images} if pack else {}
    values = {
        "project": manifest.project,
        "version": manifest.version,
        "platforms": " ".join(manifest.platforms),
        "min_engine": manifest.proxima.min_engine,
        "since": (pack.since if pack else None) or "",
        "images": "\n".join(["", *_image_lines(manifest.images, archives_by_file), ""]),
    }
    variables = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return f"{head}{_BEGIN}{variables}{_END}{tail}"


def _image_lines(images: Sequence[BundledImage], archives_by_file: Mapping[str, PackedArchive]) -> Iterator[str]:
    """Yield a line of space-separated fields per image.

    The engine needs space for each archive and its unpacked layers; a shared layer is stored once and counts for the
    first image.
    """
    counted_layers: set[tuple[str, str]] = set()
    for image in images:
        archive = archives_by_file.get(image.file)
        unpacked_sizes = {(image.platform, layer.digest): layer.unpacked_size for layer in image.layers}
        counted_layers |= {(image.platform, digest) for digest in (archive.omitted_layers if archive else ())}
        required_bytes = (archive or image).size + sum(
            unpacked_sizes[layer_key] for layer_key in unpacked_sizes.keys() - counted_layers
        )
        counted_layers |= unpacked_sizes.keys()
        required = archive.required_image if archive else None
        required_ids = (
            (required.reference, required.config_digest, required.manifest_digest) if required else ("-",) * 3
        )
        own_ids = (image.config_digest, image.manifest_digest)
        yield " ".join((image.file, image.platform, str(required_bytes), *required_ids, *own_ids, *image.references))
