"""Image archives as bases: reading one, and writing a copy of it under another name.

`docker load` takes the names in an archive away from the images that had them. So a base is loaded from a copy of its
archive that has one name, in Lyra's own repository.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lyra_tasks.digests import sha256_digest
from lyra_tasks.documents import DocumentError, parse_foreign_json, quote_value, translate_failures
from lyra_tasks.engine.bases.registry import image_platform, is_for_platform
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.references import is_attestation, normalize_reference

_INDEX_FILES = {"manifest.json", "index.json", "repositories"}
_MAX_DOCUMENT_BYTES = 16 * 1024**2
_MAX_MEMBERS = 10_000


@dataclass(frozen=True)
class ArchivedImage:
    """The only image of an archive: its config digest, its diff ids and the members with its config and layers.

    `descriptor` is the manifest's in an OCI layout, None in the format of engines before 25.
    """

    path: Path
    digest: str
    diff_ids: tuple[str, ...]
    config_member: str
    layer_members: tuple[str, ...]
    descriptor: Mapping[str, Any] | None


def read_archived_image(path: Path, platform: str) -> ArchivedImage:
    """Read the only image of a `docker save` or OCI archive, which must be for this platform."""
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist", hint="Create the archive or change `archive`")
    with _translate_damage(path), tarfile.open(path) as archive:
        return _read_image(path, archive, platform)


def write_archive_as(image: ArchivedImage, reference: str, out: IO[bytes]) -> None:
    """Write a copy of the archive to `out` that has only the name `reference` and loads in every engine."""
    manifest = [{"Config": image.config_member, "RepoTags": [reference], "Layers": list(image.layer_members)}]
    with (
        _translate_damage(image.path),
        tarfile.open(image.path) as source,
        tarfile.open(fileobj=out, mode="w") as copy,
    ):
        for member in source:
            if member.name.removeprefix("./") in _INDEX_FILES:
                continue
            copy.addfile(member, source.extractfile(member) if member.isfile() else None)
        _add_json(copy, "manifest.json", manifest)
        if image.descriptor is not None:
            tag = reference.rpartition(":")[2]
            # an image with a short name could never be removed
            names = {
                "io.containerd.image.name": normalize_reference(reference),
                "org.opencontainers.image.ref.name": tag,
            }
            descriptor = {**image.descriptor, "annotations": names}
            _add_json(copy, "index.json", {"schemaVersion": 2, "manifests": [descriptor]})


@contextmanager
def _translate_damage(path: Path) -> Iterator[None]:
    with translate_failures(
        lambda problem: ConfigurationError(
            f"{path} is not an image archive: {problem}", hint="Create it with `docker save IMAGE -o FILE`"
        )
    ):
        yield


def _read_image(path: Path, archive: tarfile.TarFile, platform: str) -> ArchivedImage:
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if len(members) >= _MAX_MEMBERS:
            raise DocumentError(f"more than {_MAX_MEMBERS} members")
        members[member.name.removeprefix("./")] = member
    _require_complete(path, archive, members.values())

    def read(name: str) -> bytes:
        stream = archive.extractfile(members[name])
        if stream is None or members[name].size > _MAX_DOCUMENT_BYTES:
            raise DocumentError(f"{quote_value(name)} is not a small file")
        return stream.read()

    def load_json(name: str) -> Any:
        return parse_foreign_json(read(name))

    descriptor = _only_image(path, load_json("index.json")) if "index.json" in members else None
    if descriptor is not None and (blob := _blob_member(descriptor["digest"])) in members:
        nested = load_json(blob)
        if "manifests" in nested:  # with attestations, or platforms that the archive lacks
            present = [item for item in nested["manifests"] if _blob_member(item["digest"]) in members]
            descriptor = _only_image(path, {"manifests": present})
    if "manifest.json" in members:
        entries = load_json("manifest.json")
        entry = _require_single(path, {(item["Config"], *item["Layers"]): item for item in entries})
        config, layers = entry["Config"], tuple(entry["Layers"])
    else:
        if descriptor is None:
            raise DocumentError("it has neither manifest.json nor index.json")
        manifest = load_json(_blob_member(descriptor["digest"]))
        config = _blob_member(manifest["config"]["digest"])
        layers = tuple(_blob_member(layer["digest"]) for layer in manifest["layers"])
    image_config = load_json(config)
    image = {key: image_config.get(key.lower()) for key in ("Os", "Architecture", "Variant")}
    if image["Architecture"] and not is_for_platform(image, platform):
        raise ConfigurationError(
            f"{path} is for {image_platform(image)}, not for {platform}",
            hint="Add an archive for each platform and write {platform} in the name, as in base-{platform}.tar",
        )
    diff_ids = tuple(image_config["rootfs"]["diff_ids"])
    if not all(isinstance(text, str) for text in (*diff_ids, *layers)):
        raise DocumentError("a layer has no name")
    if missing := [name for name in layers if name.removeprefix("./") not in members]:
        raise DocumentError(f"the layer {quote_value(missing[0])} is missing")
    return ArchivedImage(
        path=path,
        digest=sha256_digest(read(config)),
        diff_ids=diff_ids,
        config_member=config,
        layer_members=layers,
        descriptor=descriptor,
    )


def _require_complete(path: Path, archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> None:
    """Raise DocumentError if an uncompressed archive ends within its last member, which `tarfile` does not notice."""
    end = max((member.offset_data + member.size for member in members if member.isfile()), default=0)
    if isinstance(archive.fileobj, io.BufferedReader) and path.stat().st_size < end:
        raise DocumentError("it ends too early")


def _only_image(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the descriptor of the only image of an index, which has one for each name, and attestations beside it."""
    images = {
        descriptor["digest"]: descriptor
        for descriptor in index["manifests"]
        if not is_attestation(descriptor.get("annotations"), (descriptor.get("platform") or {}).get("os", ""))
    }
    return _require_single(path, images)


def _blob_member(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _require_single(path: Path, images: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return the only one of the different images; raises ConfigurationError if there are several, or none."""
    if len(images) != 1:
        raise ConfigurationError(
            f"{path} contains {len(images)} images", hint="Save one image for one platform with `docker save`"
        )
    return next(iter(images.values()))


def _add_json(archive: tarfile.TarFile, name: str, document: Any) -> None:
    data = json.dumps(document).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
