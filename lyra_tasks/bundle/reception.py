"""`receive.sh`: the script that a bundle is received with, told which images it is about."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.bundle.packs.document import Held, Pack, PackedArchive

_BEGIN = "# >>> written by promote\n"
_END = "# <<< written by promote\n"


def receive_script(manifest: Manifest, pack: Pack | None = None) -> str:
    """The script for one bundle, or for what a pack holds of it."""
    script = resources.files("lyra_tasks.bundle").joinpath("receive.sh").read_text(encoding="utf-8")
    head, _, rest = script.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{_facts(manifest, pack)}{_END}{tail}"


def _facts(manifest: Manifest, pack: Pack | None) -> str:
    thin = {each.file: each for each in pack.images} if pack else {}
    values = {
        "project": manifest.project,
        "version": manifest.version,
        "platforms": " ".join(manifest.platforms),
        "min_engine": manifest.proxima.min_engine,
        "since": (pack.since if pack else None) or "",
        "images": "\n".join(["", *_lines(manifest.images, thin), ""]),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _lines(images: Sequence[BundledImage], thin: Mapping[str, PackedArchive]) -> Iterator[str]:
    """A line of words per image, none of which can hold a space.

    The engine needs room for each archive, and for what its layers unpack to; a layer of several images is on its disk
    once, and counts for the first.
    """
    counted: set[tuple[str, str]] = set()
    for image in images:
        pack = thin.get(image.file)
        unpacked = {(image.platform, layer.digest): layer.unpacked_size for layer in image.layers}
        counted |= {(image.platform, digest) for digest in (pack.without if pack else ())}
        needed = (pack or image).size + sum(unpacked[each] for each in unpacked.keys() - counted)
        counted |= unpacked.keys()
        yield _words(image, needed, pack.held if pack else None)


def _words(image: BundledImage, needed: int, held: Held | None) -> str:
    base = (held.reference, held.config_digest, held.manifest_digest) if held else ("-", "-", "-")
    words = (image.file, image.platform, str(needed), *base, image.config_digest, image.manifest_digest)
    return " ".join((*words, *image.references))
