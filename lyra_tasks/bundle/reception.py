"""`receive.sh`: the script that a bundle is received with, told which images it is about."""

from __future__ import annotations

import shlex
from importlib import resources

from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.bundle.packs.document import Pack, PackedArchive

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
        "platforms": " ".join(_whole(manifest)),
        "min_engine": manifest.proxima.min_engine,
        "since": (pack.since if pack else None) or "",
        "images": "\n".join(["", *(_words(image, thin.get(image.file)) for image in manifest.images), ""]),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _words(image: BundledImage, thin: PackedArchive | None) -> str:
    """A line of words, none of which can hold a space; the engine needs room for the archive and what it unpacks to."""
    size = thin.size if thin else image.size
    left_out = thin.without if thin else []
    needed = size + sum(layer.unpacked_size for layer in image.layers if layer.digest not in left_out)
    held = thin.held if thin else None
    base = (held.reference, held.config_digest, held.manifest_digest) if held else ("-", "-", "-")
    words = (image.file, image.platform, str(needed), *base, image.config_digest, image.manifest_digest)
    return " ".join((*words, *image.references))


def _whole(manifest: Manifest) -> list[str]:
    """The platforms that all images of the bundle are there for."""
    names = {image.name for image in manifest.images}
    found: dict[str, set[str]] = {}
    for image in manifest.images:
        found.setdefault(image.platform, set()).add(image.name)
    return sorted(platform for platform, there in found.items() if there == names)
