"""Scans of base layers that are remembered: what is read again, and what is never kept."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.digests import sha256_digest
from lyra_tasks.errors import BundleError
from lyra_tasks.images.scan.layer_cache import LayerCache
from lyra_tasks.images.scan.layers import ScannedImage, ScannedLayer, find_setuid_files, scan_images
from lyra_tasks.images.scan.secrets import SecretMatcher
from lyra_tasks.images.stream.pack import ImageRequest

MATCHER = SecretMatcher({"key": "the-secret-key"})


class Stream(io.BytesIO):
    """A save in memory."""

    def skip(self, size: int) -> int:
        return len(super().read(size))


def pack(members: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in members.items():
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def save(*layers: bytes, damage: Callable[[bytes], bytes] = lambda blob: blob) -> tuple[bytes, str]:
    """Return the save of an image with compressed layers, whose blobs are damaged, and the image's digest."""
    blobs = [gzip.compress(layer, mtime=0) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [sha256_digest(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()

    def describe(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256_digest(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", config),
            "layers": [describe("layer.v1.tar+gzip", blob) for blob in blobs],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [describe("manifest.v1+json", manifest)]}
    members = {f"blobs/{sha256_digest(data).replace(':', '/')}": data for data in (config, manifest)}
    members |= {f"blobs/{sha256_digest(blob).replace(':', '/')}": damage(blob) for blob in blobs}
    members |= {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    return pack(members), sha256_digest(manifest)


def scan(saved: tuple[bytes, str], load: Callable[[str], ScannedLayer | None]) -> ScannedImage:
    data, digest = saved
    request = {"web": ImageRequest(digest, "linux/amd64")}
    return scan_images(Stream(data), request, matcher=MATCHER, directories=["/data"], load_layer=load)["web"]


BASE = pack({"bin/su": b"\x7fELF", "bin/mount": b"x"}, mode=0o4755)
OWN = pack({"bin/su": b"replaced"})


def test_remembered_layer_gives_the_same_scan(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    first = scan(save(BASE, OWN), cache.load)
    assert [layer.is_cached for layer in first.layers] == [False, False]
    cache.save(first.layers[0])
    second = scan(save(BASE, OWN), cache.load)
    assert [layer.is_cached for layer in second.layers] == [True, False]
    for name in (
        "diff_id",
        "size",
        "packages",
        "setuid_files",
        "directory_owners",
        "links",
        "file_hashes",
        "blob_digest",
    ):
        assert getattr(second.layers[0], name) == getattr(first.layers[0], name)
    assert find_setuid_files(second.layers) == find_setuid_files(first.layers) == {"bin/mount": (0, 0o4755)}


def test_files_of_a_remembered_layer_hide_those_below(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    cache.save(scan(save(BASE, OWN), cache.load).layers[1])
    image = scan(save(BASE, OWN), cache.load)
    assert [layer.is_cached for layer in image.layers] == [False, True]
    assert find_setuid_files(image.layers) == {"bin/mount": (0, 0o4755)}


def test_another_question_reads_the_layer_again(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    cache.save(scan(save(BASE), cache.load).layers[0])
    assert not scan(save(BASE), LayerCache(tmp_path, "another").load).layers[0].is_cached


def test_layer_with_a_secret_is_not_remembered(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    layer = scan(save(pack({"the-secret-key": b"x"})), cache.load).layers[0]
    assert layer.secret_matches
    cache.save(layer)
    assert list(tmp_path.iterdir()) == []


def test_remembered_layer_with_other_bytes_is_refused(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    cache.save(scan(save(BASE), cache.load).layers[0])
    with pytest.raises(BundleError, match="does not have the digest in its name"):
        scan(save(BASE, damage=lambda blob: blob[:-1] + b"\1"), cache.load)


def test_damaged_records_are_read_again(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, "question")
    cache.save(scan(save(BASE), cache.load).layers[0])
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    for text in ("", "{", json.dumps({**document, "file_hashes": "AAA"}), json.dumps({**document, "size": "x"})):
        path.write_text(text)
        assert not scan(save(BASE), cache.load).layers[0].is_cached
