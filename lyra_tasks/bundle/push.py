"""Pushing a bundle's images to a registry: the very bytes of its archives, under the tags that they have there."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

from lyra_tasks import console
from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.bundle.verify import verify
from lyra_tasks.engine.distribution import Repository, repository
from lyra_tasks.errors import BundleError, ImmutableError, UsageError
from lyra_tasks.images import documents
from lyra_tasks.images.archive import blob_name
from lyra_tasks.images.documents import digest_of
from lyra_tasks.records.store import canonical

_PLACE = re.compile(r"oci://([A-Za-z0-9.\[\]:-]+)((?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)/?")


@dataclass(frozen=True)
class Destination:
    """A registry and the folder in it, which may be empty: images are called `HOST/FOLDER/PROJECT/IMAGE`."""

    host: str
    folder: str


@dataclass(frozen=True)
class Pushed:
    """A reference that the registry now has, and the digest it stands for."""

    reference: str
    digest: str
    uploaded: int


def destination(text: str) -> Destination:
    """The place that `oci://HOST[:PORT][/FOLDER]` names; UsageError for anything else."""
    if "@" in text:
        raise UsageError("--to holds a name or a password", hint="`docker login HOST`, and write oci://HOST[/FOLDER]")
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(f"--to: {text!r} is not a place in a registry", hint="write oci://HOST[:PORT][/FOLDER]")
    return Destination(found[1], found[2].strip("/"))


def run(folder: Path, manifest: Manifest, to: Destination, moving: Collection[str]) -> tuple[Pushed, ...]:
    """Push all images of the bundle in `folder`; what the registry holds already is not sent again.

    Of the tags beside the version's own only those `moving` now are pushed: a newer version may have taken the others.
    BundleError if the bundle is not as it was promoted, before anything is sent. ImmutableError if this version is
    there with another digest; then nothing of that image is changed.
    """
    verify(folder)
    by_name = groupby(sorted(manifest.images, key=lambda image: image.name), key=lambda image: image.name)
    return tuple(each for _, images in by_name for each in _push(folder, list(images), to, moving))


def _push(folder: Path, images: Sequence[BundledImage], to: Destination, moving: Collection[str]) -> list[Pushed]:
    """One image, for all its platforms; several are an index."""
    name, _, tag = images[0].references[0].rpartition(":")
    name = f"{to.folder}/{name}".strip("/")
    target = repository(to.host, name)
    with target.session:
        manifests = {image.manifest_digest: _blob(folder, image, image.manifest_digest) for image in images}
        root, media_type = _root(images, manifests)
        _require_free(target, tag, digest_of(root))
        sent = sum(_upload(target, folder, image, manifests[image.manifest_digest]) for image in images)
        if len(images) > 1:
            for digest, content in manifests.items():
                target.put_manifest(digest, content, _media_type(content))
        others = (reference.rpartition(":")[2] for reference in images[0].references[1:])
        tags = [tag, *(each for each in others if each in moving)]
        for each in tags:
            target.put_manifest(each, root, media_type)
            console.note(f"pushed {to.host}/{name}:{each}")
    return [Pushed(f"{to.host}/{name}:{each}", digest_of(root), sent) for each in tags]


def _root(images: Sequence[BundledImage], manifests: dict[str, bytes]) -> tuple[bytes, str]:
    """What the tags stand for, and its media type."""
    if len(images) == 1:
        (content,) = manifests.values()
        return content, _media_type(content)
    entries = []
    for image in sorted(images, key=lambda each: each.platform):
        system, architecture, *variant = image.platform.split("/")
        platform = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        content = manifests[image.manifest_digest]
        entries.append(
            {"mediaType": _media_type(content), "digest": image.manifest_digest, "size": len(content)}
            | {"platform": platform}
        )
    index = {"schemaVersion": 2, "mediaType": documents.INDEX, "manifests": entries}
    return canonical(index).encode(), documents.INDEX


def _require_free(target: Repository, tag: str, digest: str) -> None:
    """The full version's tag never changes what it stands for; moving ones do."""
    there = target.manifest_digest(tag)
    if there not in {"", digest}:
        raise ImmutableError(
            f"{target.host}/{target.name}:{tag} is there already, as {there[7:19]}, and would become {digest[7:19]}",
            hint="a version never changes; push the next one, or remove that one from the registry",
        )


def _upload(target: Repository, folder: Path, image: BundledImage, manifest: bytes) -> int:
    """Send the blobs that the registry lacks; returns their bytes."""
    document = json.loads(manifest)
    sent = 0
    with tarfile.open(folder / image.file) as archive:
        for blob in (document["config"], *document["layers"]):
            if not target.has_blob(blob["digest"]):
                target.put_blob(blob["digest"], _member(archive, blob["digest"]))
                sent += int(blob["size"])
    return sent


def _blob(folder: Path, image: BundledImage, digest: str) -> bytes:
    with tarfile.open(folder / image.file) as archive:
        return _member(archive, digest).read()


def _member(archive: tarfile.TarFile, digest: str) -> IO[bytes]:
    try:
        content = archive.extractfile(blob_name(digest))
    except KeyError:
        content = None
    if content is None:
        raise BundleError(f"an archive of the bundle lacks the blob {digest}", hint="run `verify`")
    return content


def _media_type(manifest: bytes) -> str:
    return str(json.loads(manifest).get("mediaType") or documents.MANIFEST)
