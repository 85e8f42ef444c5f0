"""Image archives as bases: what is inside, and the same archive under another name.

`docker load` gives an image the names that its archive holds, and takes them away from other images. So an archive is
loaded from a copy that holds one name only: ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lyra_tasks.engine.bases.registry import image_platform, is_for_platform
from lyra_tasks.errors import ConfigurationError

_INDEX_FILES = {"manifest.json", "index.json", "repositories"}
_MAX_DOCUMENT_BYTES = 16 * 1024**2  # bytes; a config or manifest is some kilobytes


@dataclass(frozen=True)
class ArchivedImage:
    """The one image of an archive: its config digest, its layers' diff ids, and the members that hold its parts.

    `descriptor` is the manifest's in an OCI layout, None in the format of engines before 25.
    """

    path: Path
    digest: str
    diff_ids: tuple[str, ...]
    config_member: str
    layer_members: tuple[str, ...]
    descriptor: Mapping[str, Any] | None


def read_archived_image(path: Path, platform: str) -> ArchivedImage:
    """Read the image of a `docker save` or OCI archive.

    ConfigurationError if it is none, or holds several, or is for another platform.
    """
    try:
        with tarfile.open(path) as archive:
            return _read_image(path, archive, platform)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: there is no such archive", hint="bring it, or name another one") from error
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: is not an image archive", hint="make it with `docker save IMAGE -o FILE`"
        ) from error


def write_archive_as(image: ArchivedImage, reference: str, out: IO[bytes]) -> None:
    """Write the archive to `out` with `reference` as its only name, so that engines of every age can load it."""
    manifest = [{"Config": image.config_member, "RepoTags": [reference], "Layers": list(image.layer_members)}]
    with tarfile.open(image.path) as source, tarfile.open(fileobj=out, mode="w") as copy:
        for member in source:
            if member.name.removeprefix("./") in _INDEX_FILES:
                continue
            copy.addfile(member, source.extractfile(member) if member.isfile() else None)
        _add_json(copy, "manifest.json", manifest)
        if image.descriptor is not None:
            tag = reference.rpartition(":")[2]
            names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag}
            descriptor = {**image.descriptor, "annotations": names}
            _add_json(copy, "index.json", {"schemaVersion": 2, "manifests": [descriptor]})


def _read_image(path: Path, archive: tarfile.TarFile, platform: str) -> ArchivedImage:
    members = {member.name.removeprefix("./"): member for member in archive}

    def load_json(name: str) -> Any:
        member = members[name]
        stream = archive.extractfile(member)
        if stream is None or member.size > _MAX_DOCUMENT_BYTES:
            raise ValueError(name)
        return json.loads(stream.read())

    descriptor = None
    if "index.json" in members:
        descriptor = _require_single(
            path,
            [
                candidate
                for candidate in load_json("index.json")["manifests"]
                if not _is_attestation_manifest(candidate)
            ],
        )
    if "manifest.json" in members:
        entry = _require_single(path, load_json("manifest.json"))
        config, layers = entry["Config"], tuple(entry["Layers"])
    else:
        if descriptor is None:
            raise ValueError("neither manifest.json nor index.json")
        manifest = load_json(_blob_member(descriptor["digest"]))
        if "manifests" in manifest:
            descriptor = _require_single(
                path, [candidate for candidate in manifest["manifests"] if not _is_attestation_manifest(candidate)]
            )
            manifest = load_json(_blob_member(descriptor["digest"]))
        config = _blob_member(manifest["config"]["digest"])
        layers = tuple(_blob_member(layer["digest"]) for layer in manifest["layers"])
    image_config = load_json(config)
    loaded_platform = {
        "Os": image_config.get("os"),
        "Architecture": image_config.get("architecture"),
        "Variant": image_config.get("variant"),
    }
    if loaded_platform["Architecture"] and not is_for_platform(loaded_platform, platform):
        raise ConfigurationError(
            f"{path}: is for {image_platform(loaded_platform)}, and {platform} is built",
            hint="bring an archive for it; with {platform} in its name, each platform has its own: linux-arm64",
        )
    stream = archive.extractfile(members[config])
    digest = hashlib.sha256(stream.read() if stream else b"").hexdigest()
    return ArchivedImage(
        path=path,
        digest=f"sha256:{digest}",
        diff_ids=tuple(image_config["rootfs"]["diff_ids"]),
        config_member=config,
        layer_members=layers,
        descriptor=descriptor,
    )


def _is_attestation_manifest(descriptor: Mapping[str, Any]) -> bool:
    return (descriptor.get("platform") or {}).get("os") == "unknown"


def _blob_member(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _require_single(path: Path, entries: list[dict[str, Any]]) -> dict[str, Any]:
    if len(entries) != 1:
        raise ConfigurationError(
            f"{path}: holds {len(entries)} images", hint="make an archive of one image for one platform"
        )
    return entries[0]


def _add_json(archive: tarfile.TarFile, name: str, document: Any) -> None:
    data = json.dumps(document).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
