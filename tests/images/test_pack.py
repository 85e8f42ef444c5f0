"""Saves of any layout are packed to the same image."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_tasks.errors import BundleError
from lyra_tasks.images.stream.codec import Compression, DigestWriter, compress_blocks, decompress_blocks, detect_codec
from lyra_tasks.images.stream.pack import ImageRequest, PackedImage, pack_saved_images
from lyra_tasks.images.stream.tar import BlockReader
from tests.images.saves import SampleImage, blob, layer, layout, legacy, pieces, sha256, stream, tar

COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd")

BASE = layer({"etc/base": b"base" * 5000})
WEB = SampleImage("shop/web:1.0", (BASE, layer({"app/web": b"w" * 3_000_000})))
COUNTER = SampleImage("shop/counter:1.0", (BASE, layer({"{json-like}": b"c"})))

SAVES = {
    "legacy": legacy(WEB, COUNTER),
    "classic": layout(WEB, COUNTER, compressed=False),
    "containerd": layout(WEB, COUNTER, compressed=True),
    "containerd with attestations": layout(WEB, COUNTER, compressed=True, nested=True),
}


def packed(
    members: list[tuple[str, bytes | str]], spool: Path, compression: Compression = "gzip"
) -> dict[str, PackedImage]:
    spool.mkdir(exist_ok=True)
    requests = {"web": ImageRequest("shop/web:1.0"), "counter": ImageRequest("shop/counter:1.0", "linux/amd64")}
    return pack_saved_images(stream(tar(members)), requests, spool, compression)


@pytest.mark.parametrize("kind", SAVES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_layout_yields_original_image(kind: str, compression: Compression, tmp_path: Path) -> None:
    images = packed(SAVES[kind], tmp_path, compression)
    for name, sample in (("web", WEB), ("counter", COUNTER)):
        image = images[name]
        assert image.config == sample.config
        assert image.identity.config_digest == sha256(sample.config)
        assert image.identity.manifest_digest == sha256(image.manifest)
        assert image.identity.platform == "linux/amd64"
        assert image.identity.diff_ids == tuple(map(sha256, sample.layers))
        assert [packed_layer.unpacked_size for packed_layer in image.identity.layers] == list(map(len, sample.layers))
        for packed_layer, content in zip(image.identity.layers, sample.layers, strict=True):
            data = (tmp_path / packed_layer.digest.removeprefix("sha256:")).read_bytes()
            assert (sha256(data), len(data)) == (packed_layer.digest, packed_layer.size)
            codec = detect_codec(data)
            assert packed_layer.media_type.endswith(f"+{codec}")
            assert b"".join(decompress_blocks([data], codec, "blob")) == content


def test_shared_layer_is_spooled_once(tmp_path: Path) -> None:
    packed(SAVES["legacy"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_blobs_do_not_depend_on_layout_or_block_size(tmp_path: Path) -> None:
    first = packed(SAVES["legacy"], tmp_path / "a")["web"].identity
    again = packed(SAVES["classic"], tmp_path / "b")["web"].identity
    data = tar(SAVES["classic"])
    (tmp_path / "c").mkdir()
    whole = pack_saved_images(BlockReader([data]), {1: ImageRequest("shop/web:1.0")}, tmp_path / "c", "gzip")[
        1
    ].identity
    assert first == again == whole


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_gzip_layers_and_manifest_are_kept(compression: Compression, tmp_path: Path) -> None:
    blobs = [gzip.compress(content, 9, mtime=7) for content in WEB.layers]
    image = packed(SAVES["containerd"], tmp_path, compression)["web"]
    assert [packed_layer.digest for packed_layer in image.identity.layers] == list(map(sha256, blobs))
    assert image.manifest == WEB.manifest(blobs, "+gzip")


def test_zstd_layers_are_recompressed_for_gzip(tmp_path: Path) -> None:
    blobs = []
    for number, content in enumerate(WEB.layers):
        with (tmp_path / str(number)).open("w+b") as file:
            compress_blocks([content], "zstd", DigestWriter(file))
            file.seek(0)
            blobs.append(file.read())
    manifest = WEB.manifest(blobs, "+zstd")
    members = dict(layout(WEB, compressed=True)) | dict(map(blob, (*blobs, manifest)))
    descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(manifest), "size": 1}
    members["index.json"] = json.dumps({"manifests": [descriptor]}).encode()
    for compression in COMPRESSIONS:
        spool = tmp_path / compression
        spool.mkdir()
        save = stream(tar(list(members.items())))
        image = pack_saved_images(save, {0: ImageRequest(sha256(manifest))}, spool, compression)[0]
        assert image.identity.diff_ids == tuple(map(sha256, WEB.layers))
        assert all(packed_layer.media_type.endswith(compression) for packed_layer in image.identity.layers)
        assert (image.manifest == manifest) is (compression == "zstd")


@pytest.mark.parametrize("compressed", [False, True])
def test_image_is_found_by_any_digest(compressed: bool, tmp_path: Path) -> None:
    members = layout(WEB, compressed=compressed, nested=True)
    index = json.loads(dict(members)["index.json"])["manifests"][0]["digest"]
    for key in (sha256(WEB.config), index, f"shop/web@{index}", "docker.io/shop/web:1.0"):
        image = pack_saved_images(stream(tar(members)), {0: ImageRequest(key)}, tmp_path, "gzip")[0]
        assert image.identity.config_digest == sha256(WEB.config)


def test_missing_image_is_reported_with_platform(tmp_path: Path) -> None:
    for request in (
        ImageRequest("shop/web:2.0"),
        ImageRequest("shop/web:1.0", "linux/arm64"),
        ImageRequest("sha256:" + "0" * 64),
    ):
        with pytest.raises(BundleError, match="not found") as error:
            pack_saved_images(stream(tar(SAVES["containerd"])), {0: request}, tmp_path, "gzip")
        assert request.reference in error.value.message
        assert request.platform in error.value.message


def test_image_missing_in_index_is_found_in_manifest_json(tmp_path: Path) -> None:
    members = dict(layout(WEB, COUNTER, compressed=False))
    index = json.loads(members["index.json"])
    members["index.json"] = json.dumps({**index, "manifests": index["manifests"][1:]}).encode()
    entries = [
        {"Config": blob(image.config)[0], "RepoTags": None, "Layers": [blob(content)[0] for content in image.layers]}
        for image in (WEB, COUNTER)
    ]
    members["manifest.json"] = json.dumps(entries).encode()
    requests = {image.reference: ImageRequest(sha256(image.config), "linux/amd64") for image in (WEB, COUNTER)}
    images = pack_saved_images(stream(tar(list(members.items()))), requests, tmp_path, "gzip")
    whole = packed(SAVES["classic"], tmp_path)
    assert images[WEB.reference].identity == whole["web"].identity
    assert images[COUNTER.reference].identity == whole["counter"].identity


def test_ambiguous_platform_is_refused(tmp_path: Path) -> None:
    arm = SampleImage(WEB.reference, WEB.layers, "arm64")
    members = layout(WEB, arm, compressed=True)
    with pytest.raises(BundleError, match="several platforms, and none is selected: linux/amd64, linux/arm64"):
        pack_saved_images(stream(tar(members)), {0: ImageRequest(WEB.reference)}, tmp_path, "gzip")
    image = pack_saved_images(stream(tar(members)), {0: ImageRequest(WEB.reference, "linux/arm64")}, tmp_path, "gzip")[
        0
    ]
    assert image.config == arm.config


@pytest.mark.parametrize("kind", SAVES)
def test_truncated_stream_is_refused(kind: str, tmp_path: Path) -> None:
    whole = tar(SAVES[kind]).rstrip(b"\0")
    for end in (0, 100, 512, len(whole) // 3, len(whole) * 2 // 3, len(whole) - 1, len(whole)):
        with pytest.raises(BundleError):
            pack_saved_images(stream(whole[:end], 65536), {0: ImageRequest(WEB.reference)}, tmp_path, "gzip")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


def test_layer_of_another_image_is_refused(tmp_path: Path) -> None:
    members = [(name, layer({"x": b"x"}) if data == WEB.layers[1] else data) for name, data in legacy(WEB)]
    with pytest.raises(BundleError, match="other layers than its config"):
        pack_saved_images(stream(tar(members)), {0: ImageRequest(WEB.reference)}, tmp_path, "gzip")


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_config_or_manifest_is_refused(compressed: bool, tmp_path: Path) -> None:
    members = dict(layout(WEB, compressed=compressed))
    documents = [item for item in members.items() if item[0].startswith("blobs/") and item[1][:1] == b"{"]
    assert len(documents) == 2
    for name, data in documents:
        assert isinstance(data, bytes)
        changed = members | {name: data.replace(b'"', b' "', 1)}
        with pytest.raises(BundleError, match="digest in its name"):
            pack_saved_images(stream(tar(list(changed.items()))), {0: ImageRequest(WEB.reference)}, tmp_path, "gzip")


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (("../escape", b"x"), "is outside"),
        (("/absolute", b"x"), "is outside"),
        (("link", "../../etc/passwd"), "is outside"),
        (("manifest.json", b"[]"), "duplicate"),
        (("bomb.json", b"\x1f\x8bnot gzip at all"), "damaged"),
    ],
)
def test_hostile_members_are_refused(member: tuple[str, bytes | str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=problem):
        pack_saved_images(stream(tar([*SAVES["legacy"], member])), {0: ImageRequest(WEB.reference)}, tmp_path, "gzip")


def test_circular_links_are_refused(tmp_path: Path) -> None:
    entries: list[dict[str, object]] = [{"Config": "a", "RepoTags": None, "Layers": []}]
    members: list[tuple[str, bytes | str]] = [("a", "b"), ("b", "a"), ("manifest.json", json.dumps(entries).encode())]
    with pytest.raises(BundleError, match="circular link"):
        pack_saved_images(stream(tar(members)), {}, tmp_path, "gzip")


def test_error_of_stream_is_raised_unchanged(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield tar(SAVES["legacy"])[:2_000_000]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        pack_saved_images(BlockReader(broken()), {}, tmp_path, "gzip")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 700), st.sampled_from(COMPRESSIONS))
def test_compressed_blocks_decompress_in_any_division(content: bytes, size: int, codec: Compression) -> None:
    file = io.BytesIO()
    compress_blocks([content], codec, DigestWriter(file))
    compress_blocks([b"second member"], codec, DigestWriter(file))
    assert b"".join(decompress_blocks(pieces(file.getvalue(), size), codec, "blob")) == content + b"second member"
    with pytest.raises(BundleError, match="unpacks to more"):
        list(decompress_blocks([file.getvalue()], codec, "blob", limit=len(content) + 12))
    with pytest.raises(BundleError):
        list(decompress_blocks([file.getvalue()[:-1]], codec, "blob"))


def test_large_layer_compresses_to_same_bytes(tmp_path: Path) -> None:
    noise = random.Random(7).randbytes(9_000_000)
    image = SampleImage("shop/big:1", (layer({"noise": noise, "zeros": bytes(9_000_000)}),))
    for compression in COMPRESSIONS:
        identities = set()
        for size in (977, 65536, 5_000_000):
            spool = tmp_path / f"{compression}{size}"
            spool.mkdir()
            save = stream(tar(legacy(image)), size)
            identities.add(pack_saved_images(save, {0: ImageRequest("shop/big:1")}, spool, compression)[0].identity)
        assert len(identities) == 1
