"""`PROMOTION.md` of a pack: the page of its bundle, with what is different for the pack."""

from __future__ import annotations

from collections.abc import Iterator

from lyra_tasks.bundle.content.page import describe_archive
from lyra_tasks.bundle.format.layout import CHANGES_FILE, DOCUMENTS_FILE, REPORT_FILE, RULES_FILE
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.bundle.format.pack import PackedFile, PackManifest
from lyra_tasks.console import format_bytes, format_count


def render_pack_page(page: str, manifest: Manifest, pack: PackManifest) -> str:
    """Return the page of the bundle with a section on the pack before all others, and sizes and places of the pack."""
    archives = manifest.archives_by_file
    for packed in pack.archives:
        text = f"`{packed.file}` ({_describe_size(packed)}) has {'layers of' if packed.omitted_layers else ''}"
        text = f"{text.rstrip()} all images for {packed.platform}"
        omission = f", except those of {pack.since}" if packed.omitted_layers else ""
        page = page.replace(describe_archive(archives[packed.file]), f"{text}{omission}.\n")
    for name in (CHANGES_FILE, RULES_FILE):
        page = page.replace(f"`{name}`", f"`{name}` of the documents")
    title, separator, rest = page.partition("\n## ")
    return f"{title}\n## This is a pack\n\n{''.join(_describe_pack(pack))}{separator}{rest}"


def _describe_pack(pack: PackManifest) -> Iterator[str]:
    required = {image.reference: image for archive in pack.archives for image in archive.required_images}
    if required:
        yield (
            f"It lacks layers of version {pack.since}. The node must have "
            f"{'this image' if len(required) == 1 else 'these images'} with exactly these digests (config, manifest), "
            "or nothing is loaded (31):\n\n"
        )
        for image in required.values():
            yield f"- `{image.reference}`: `{image.config_digest}`, `{image.manifest_digest}`\n"
        yield f"\n`docker image rm` of {pack.since} must wait until this version is loaded.\n\n"
    else:
        yield "It is complete: no other version has to be on the node.\n\n"
    if any(file.parts for file in (*pack.archives, pack.documents)):
        yield "Numbered parts (`.001`, `.002`, …) must lie in one directory; they need not be joined.\n\n"
    name = f"../{pack.project}-{pack.version}-documents"
    yield (
        f"`{CHANGES_FILE}`, `{REPORT_FILE}`, `evidence/` and all other documents of the bundle, with its own checksums "
        f"and its own page, are in `{DOCUMENTS_FILE}` ({_describe_size(pack.documents)}). Unpack it beside the pack, "
        f"never into it:\n\n```\nmkdir {name}\ncat {DOCUMENTS_FILE}* | tar -xzf - -C {name}\n```\n"
    )


def _describe_size(file: PackedFile) -> str:
    parts = f" in {format_count(file.parts, 'part')}" if file.parts else ""
    return f"{format_bytes(file.size)}{parts}"
