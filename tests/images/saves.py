"""Small images, and saves of them as three kinds of engine write them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from isal import igzip

from lyra_tasks.images.stream.tar import BlockReader

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def layer(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed layer."""
    return tar([(name, data) for name, data in files.items()])


def compressed_size(save: IO[bytes]) -> int:
    """Return the size of the layers of a `docker save`, each once, and compressed as an archive of ours has them."""
    with tarfile.open(fileobj=save) as archive:
        entries = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
        layers = sorted({layer for entry in entries for layer in entry["Layers"]})
        blobs = (archive.extractfile(layer).read() for layer in layers)  # type: ignore[union-attr]
        return sum(len(blob if blob.startswith(b"\x1f\x8b") else igzip.compress(blob, 2)) for blob in blobs)


def tar(members: Sequence[tuple[str, bytes | str]]) -> bytes:
    """Return a tar of files (bytes) and symbolic links (text), in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    """Return the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(data: bytes) -> tuple[str, bytes]:
    """Return a blob as a member of an image layout."""
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """Divide `data` as a socket would."""
    return (data[start : start + size] for start in range(0, len(data), size))


def stream(data: bytes, size: int = 1000) -> BlockReader:
    """Return a reader of `data` in pieces."""
    return BlockReader(pieces(data, size))


@dataclass(frozen=True)
class SampleImage:
    """An image with these uncompressed layers."""

    reference: str
    layers: tuple[bytes, ...]
    architecture: str = "amd64"

    @property
    def config(self) -> bytes:
        """Return the image config, with unusual spacing because it must be kept byte for byte."""
        diff_ids = [sha256(content) for content in self.layers]
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        return json.dumps(document, indent=3).encode()

    def manifest(self, blobs: Sequence[bytes], suffix: str) -> bytes:
        """Return an OCI manifest with these blobs."""
        media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
        layers = [{"mediaType": media_type, "digest": sha256(content), "size": len(content)} for content in blobs]
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(self.config)}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}
        return json.dumps(document | {"config": config | {"size": len(self.config)}}, indent=1).encode()


def legacy(*images: SampleImage) -> list[tuple[str, bytes | str]]:
    """Return a save as of Engine 20.10: a directory per layer, links to repeated layers first, the manifest last."""
    members: list[tuple[str, bytes | str]] = []
    entries = []
    directories: dict[bytes, str] = {}
    for number, image in enumerate(images):
        paths = []
        for position, content in enumerate(image.layers):
            directory = hashlib.sha256(b"%d %d" % (number, position)).hexdigest()
            members.append((f"{directory}/VERSION", b"1.0"))
            members.append((f"{directory}/json", b'{"id":"%s"}' % directory.encode()))
            if content in directories:
                members.insert(0, (f"{directory}/layer.tar", f"../{directories[content]}/layer.tar"))
            else:
                members.append((f"{directory}/layer.tar", content))
                directories[content] = directory
            paths.append(f"{directory}/layer.tar")
        name = f"{hashlib.sha256(image.config).hexdigest()}.json"
        members.append((name, image.config))
        entries.append({"Config": name, "RepoTags": [image.reference], "Layers": paths})
    return [*members, ("manifest.json", json.dumps(entries).encode())]


def layout(*images: SampleImage, compressed: bool, nested: bool = False) -> list[tuple[str, bytes | str]]:
    """Return a save of newer engines: an image layout with plain (classic store) or compressed layers (containerd).

    `nested` adds an index with an attestation and another platform, whose blobs are missing.
    """
    blobs: dict[str, bytes] = {}
    descriptors: list[dict[str, Any]] = []
    for image in images:
        contents = [gzip.compress(content, 9, mtime=7) if compressed else content for content in image.layers]
        manifest = image.manifest(contents, "+gzip" if compressed else "")
        blobs |= dict(map(blob, (*contents, image.config, manifest)))
        top, kind = manifest, OCI_MANIFEST
        if nested:
            top, kind = _index(manifest), OCI_INDEX
            blobs |= dict(map(blob, (top, ATTESTATION)))
        name = {"io.containerd.image.name": f"docker.io/{image.reference}"}
        descriptors.append({"mediaType": kind, "digest": sha256(top), "size": len(top), "annotations": name})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    return [
        *sorted(blobs.items()),
        ("index.json", json.dumps(index).encode()),
        ("manifest.json", b"[]"),
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
    ]


ATTESTATION = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()


def _index(manifest: bytes) -> bytes:
    absent = b"another platform"
    attested = {"vnd.docker.reference.type": "attestation-manifest"}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {"mediaType": OCI_MANIFEST, "digest": sha256(ATTESTATION), "size": 2, "annotations": attested},
                {"mediaType": OCI_MANIFEST, "digest": sha256(absent), "size": len(absent)},
                {"mediaType": OCI_MANIFEST, "digest": sha256(manifest), "size": len(manifest)},
            ],
        }
    ).encode()
