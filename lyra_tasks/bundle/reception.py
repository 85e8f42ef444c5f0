"""`receive.sh`: the script that a bundle is received with, told which images it is about."""

from __future__ import annotations

import shlex
from importlib import resources

from lyra_tasks.bundle.manifest import BundledImage, Manifest

_BEGIN = "# >>> written by promote\n"
_END = "# <<< written by promote\n"


def receive_script(manifest: Manifest) -> str:
    """The script for one bundle."""
    script = resources.files("lyra_tasks.bundle").joinpath("receive.sh").read_text(encoding="utf-8")
    head, _, rest = script.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{_facts(manifest)}{_END}{tail}"


def _facts(manifest: Manifest) -> str:
    values = {
        "project": manifest.project,
        "version": manifest.version,
        "platforms": " ".join(sorted({image.platform for image in manifest.images})),
        "min_engine": manifest.proxima.min_engine,
        "images": "\n".join(["", *map(_words, manifest.images), ""]),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _words(image: BundledImage) -> str:
    """A line of words, none of which can hold a space; the engine needs room for the archive and what it unpacks to."""
    needed = image.size + sum(layer.unpacked_size for layer in image.layers)
    return " ".join((image.file, str(needed), image.config_digest, image.manifest_digest, *image.references))
