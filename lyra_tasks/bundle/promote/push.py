"""Push the images of a bundle to a registry, with the bytes and the tags of its archives."""

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
from lyra_tasks.bundle.format.manifest import Bundle, BundledImage
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.digests import canonical_json, sha256_digest
from lyra_tasks.errors import BundleError, ImmutableError, UsageError
from lyra_tasks.images.oci import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, blob_name
from lyra_tasks.registry.client import Repository, open_repository
from lyra_tasks.results.lifecycle import PushedTag

_DESTINATION_PATTERN = re.compile(r"oci://([A-Za-z0-9.\[\]:-]+)((?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)/?")


@dataclass(frozen=True)
class Destination:
    """A registry and a path, which may be empty: images are named `HOST/PATH/PROJECT/IMAGE`."""

    host: str
    path: str


def parse_destination(text: str) -> Destination:
    """Parse `oci://HOST[:PORT][/PATH]`; raise UsageError for anything else."""
    if "@" in text:
        raise UsageError("--to contains credentials", hint="Run `docker login HOST` and write oci://HOST[/PATH]")
    match = _DESTINATION_PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(f"--to: invalid destination {text!r}", hint="Write oci://HOST[:PORT][/PATH]")
    return Destination(match[1], match[2].strip("/"))


def push_bundle(bundle: Bundle, destination: Destination, moving_tags: Collection[str]) -> tuple[PushedTag, ...]:
    """Verify the bundle and push its images; blobs that the registry has are not uploaded again.

    Besides the version's own tag only `moving_tags` are pushed, since a newer version may own the others by now. Raises
    ImmutableError if the registry has the version with another digest; that image is not changed.
    """
    verify_bundle(bundle.directory)
    images = sorted(bundle.manifest.images, key=lambda image: image.name)
    return tuple(
        tag
        for _, platform_images in groupby(images, key=lambda image: image.name)
        for tag in _push_image(bundle, list(platform_images), destination, moving_tags)
    )


def _push_image(
    bundle: Bundle, images: Sequence[BundledImage], destination: Destination, moving_tags: Collection[str]
) -> list[PushedTag]:
    """Push an image for all its platforms, as an index if there are several."""
    name, _, version_tag = images[0].references[0].rpartition(":")
    name = f"{destination.path}/{name}".strip("/")
    target = open_repository(destination.host, name)
    with target.session:
        paths = {
            image.platform: bundle.directory / bundle.manifest.archive_for(image.platform).file for image in images
        }
        manifests = {
            image.manifest_digest: _read_blob(paths[image.platform], image.manifest_digest) for image in images
        }
        root, media_type = _root_manifest(images, manifests)
        _require_unchanged_tag(target, version_tag, sha256_digest(root))
        uploaded_bytes = sum(
            _upload_blobs(target, paths[image.platform], manifests[image.manifest_digest]) for image in images
        )
        if len(images) > 1:
            for digest, content in manifests.items():
                target.put_manifest(digest, content, _media_type(content))
        other_tags = (reference.rpartition(":")[2] for reference in images[0].references[1:])
        tags = [version_tag, *(other for other in other_tags if other in moving_tags)]
        for tag in tags:
            target.put_manifest(tag, root, media_type)
            console.info(f"Pushed {destination.host}/{name}:{tag}")
    return [PushedTag(f"{destination.host}/{name}:{tag}", sha256_digest(root), uploaded_bytes) for tag in tags]


def _root_manifest(images: Sequence[BundledImage], manifests: dict[str, bytes]) -> tuple[bytes, str]:
    """Return the manifest or index that the tags refer to, and its media type."""
    if len(images) == 1:
        (content,) = manifests.values()
        return content, _media_type(content)
    entries = []
    for image in sorted(images, key=lambda image: image.platform):
        system, architecture, *variant = image.platform.split("/")
        platform = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        content = manifests[image.manifest_digest]
        entries.append(
            {"mediaType": _media_type(content), "digest": image.manifest_digest, "size": len(content)}
            | {"platform": platform}
        )
    index = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": entries}
    return canonical_json(index).encode(), INDEX_MEDIA_TYPE


def _require_unchanged_tag(target: Repository, tag: str, digest: str) -> None:
    """Raise ImmutableError if the version's own tag has another digest."""
    existing = target.manifest_digest(tag)
    if existing not in {"", digest}:
        raise ImmutableError(
            f"{target.host}/{target.name}:{tag} already exists with digest {existing[7:19]}, not {digest[7:19]}",
            hint="Versions are immutable: push the next one, or delete the tag from the registry",
        )


def _upload_blobs(target: Repository, archive_path: Path, manifest: bytes) -> int:
    """Upload the blobs that the registry lacks and return their total size."""
    document = json.loads(manifest)
    uploaded_bytes = 0
    with tarfile.open(archive_path) as archive:
        for blob in (document["config"], *document["layers"]):
            if not target.has_blob(blob["digest"]):
                target.put_blob(blob["digest"], _open_blob(archive, blob["digest"]))
                uploaded_bytes += int(blob["size"])
    return uploaded_bytes


def _read_blob(archive_path: Path, digest: str) -> bytes:
    with tarfile.open(archive_path) as archive:
        return _open_blob(archive, digest).read()


def _open_blob(archive: tarfile.TarFile, digest: str) -> IO[bytes]:
    try:
        content = archive.extractfile(blob_name(digest))
    except KeyError:
        content = None
    if content is None:
        raise BundleError(f"An archive of the bundle lacks the blob {digest}", hint="Run `verify`")
    return content


def _media_type(manifest: bytes) -> str:
    return str(json.loads(manifest).get("mediaType") or MANIFEST_MEDIA_TYPE)
