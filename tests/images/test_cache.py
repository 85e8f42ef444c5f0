"""The layer cache saves work and never changes an image, whatever is in it."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import ExpectedImage, verify_archive
from lyra_tasks.images.archive.write import ArchiveEntry, write_archive
from lyra_tasks.images.scan.layers import scan_images
from lyra_tasks.images.scan.secrets import SecretMatcher
from lyra_tasks.images.stream import layers
from lyra_tasks.images.stream.cache import CacheMissError, LayerCache
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.pack import ImageRequest, PackedImage, pack_saved_images, pack_spooled_images
from tests.images.saves import SampleImage, layer, layout, legacy, sha256, stream, tar

BASE = layer({"etc/base": random.Random(1).randbytes(300_000)})
APP = layer({"app/web": b"w" * 2_000_000})
IMAGE = SampleImage("shop/web:1.0", (BASE, APP))
SAVES = {
    "legacy": legacy(IMAGE),
    "classic": layout(IMAGE, compressed=False),
    "containerd": layout(IMAGE, compressed=True),
}
LIMIT = 1024**3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the calls that compress or unpack a layer."""
    names: list[str] = []

    def record(name: str) -> None:
        original = getattr(layers, name)

        def wrapper(*args: object, **options: object) -> object:
            names.append(name)
            return original(*args, **options)

        monkeypatch.setattr(layers, name, wrapper)

    record("compress_blocks")
    record("measure_unpacked")
    return names


def packed(
    members: list[tuple[str, bytes | str]], spool: Path, cache: LayerCache | None, compression: Compression = "gzip"
) -> PackedImage:
    spool.mkdir()
    return pack_saved_images(
        stream(tar(members), 65536), {0: ImageRequest(IMAGE.reference)}, spool, compression, cache
    )[0]


def exported(
    members: list[tuple[str, bytes | str]], spool: Path, cache: LayerCache, compression: Compression = "gzip"
) -> tuple[PackedImage, list[str]]:
    """Return the image from a directory of blobs, and the names of the blobs that had to be sent."""
    spool.mkdir()
    sent: list[str] = []

    def send() -> None:
        for name, content in members:
            target = spool / name.rpartition("/")[2]
            if name.startswith("blobs/") and isinstance(content, bytes) and not target.exists():
                target.write_bytes(content)
                sent.append(target.name)

    known = cache.fill_spool(spool, send)
    index = json.loads(dict(members)["index.json"])
    return pack_spooled_images({0: index["manifests"][0]["digest"]}, spool, compression, known, cache)[0], sent


def cached(directory: Path, limit: int = LIMIT) -> LayerCache:
    return LayerCache(directory / "cache", limit, [sha256(content) for content in IMAGE.layers])


def entries(directory: Path, *kinds: str) -> list[Path]:
    """Return the files of the cache of these kinds."""
    return [path for kind in kinds for path in sorted((directory / "cache" / kind).iterdir())]


def spooled_digests(spool: Path) -> set[str]:
    """Return the digests of all files in the spool."""
    return {f"sha256:{path.name}" for path in spool.iterdir()}


def first(members: list[tuple[str, bytes | str]], directory: Path) -> PackedImage:
    cache = cached(directory)
    image = packed(members, directory / "first", cache)
    cache.save_pending(directory / "first", spooled_digests(directory / "first"))
    return image


@pytest.mark.parametrize("kind", SAVES)
def test_cached_layers_are_not_compressed_or_unpacked(kind: str, tmp_path: Path, calls: list[str]) -> None:
    image = first(SAVES[kind], tmp_path)
    assert len(calls) == (2 if kind == "containerd" else 4)
    calls.clear()
    again = packed(SAVES[kind], tmp_path / "second", cached(tmp_path))
    assert calls == []
    assert again.identity == image.identity
    assert again.manifest == image.manifest
    assert again.unverified == frozenset()
    for packed_layer in again.identity.layers:
        path = layers.blob_path(tmp_path / "second", packed_layer.digest)
        assert sha256(path.read_bytes()) == packed_layer.digest


def test_only_compressed_layers_are_unverified(tmp_path: Path) -> None:
    assert first(SAVES["legacy"], tmp_path).unverified == {
        packed_layer.digest for packed_layer in packed(SAVES["classic"], tmp_path / "x", None).identity.layers
    }
    assert packed(SAVES["containerd"], tmp_path / "y", None).unverified == frozenset()


def test_codecs_have_separate_entries(tmp_path: Path, calls: list[str]) -> None:
    first(SAVES["classic"], tmp_path)
    calls.clear()
    packed(SAVES["classic"], tmp_path / "second", cached(tmp_path), "zstd")
    assert calls.count("compress_blocks") == 2


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip_bit, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("kind", ["legacy", "containerd"])
def test_damaged_cache_is_detected_and_repaired(kind: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    image = first(SAVES[kind], tmp_path)
    directories = ("unpacked",) if kind == "containerd" else ("compressed", "blobs")
    files = entries(tmp_path, *directories)
    assert len(files) == 2 * len(directories)
    for number, path in enumerate(files):
        data = path.read_bytes()
        damage(path)
        spool = tmp_path / f"again{number}"
        cache = cached(tmp_path)
        try:
            again = packed(SAVES[kind], spool, cache)
        except CacheMissError:
            spool = tmp_path / f"retry{number}"
            cache.distrust()
            again = packed(SAVES[kind], spool, cache)
        assert again.identity == image.identity
        cache.save_pending(spool, spooled_digests(spool))
        for packed_layer in again.identity.layers:
            assert sha256(layers.blob_path(spool, packed_layer.digest).read_bytes()) == packed_layer.digest
        assert path.exists(), f"{path.name} was not repaired"
        if path.suffix != ".json":
            assert path.read_bytes() == data


@pytest.mark.parametrize("damage", [flip_bit, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_engine_blob_is_sent_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    save = SAVES["containerd"]
    cache = cached(tmp_path)
    image, _ = exported(save, tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", spooled_digests(tmp_path / "first"))
    files = entries(tmp_path, "compressed", "blobs")
    assert len(files) == 4
    for number, path in enumerate(files):
        data = path.read_bytes()
        damage(path)
        spool, cache = tmp_path / f"again{number}", cached(tmp_path)
        again, sent = exported(save, spool, cache)
        assert (again.identity, again.manifest) == (image.identity, image.manifest)
        assert len([name for name in sent if (spool / name).stat().st_size > 1000]) == 1
        cache.save_pending(spool, spooled_digests(spool))
        assert path.read_bytes() == data, f"{path.name} was not repaired"
        for packed_layer in again.identity.layers:
            assert sha256(layers.blob_path(spool, packed_layer.digest).read_bytes()) == packed_layer.digest


def test_known_blob_verified_later_is_refused_when_read_back(tmp_path: Path) -> None:
    """The blobs of a private engine are linked, and hashed once: in the archive."""
    save = SAVES["containerd"]
    cache = cached(tmp_path)
    image, _ = exported(save, tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", spooled_digests(tmp_path / "first"))
    digest = image.identity.manifest_digest
    for name in ("intact", "damaged"):
        spool = tmp_path / name
        shutil.copytree(tmp_path / "first", spool)
        if name == "damaged":
            flip_bit(layers.blob_path(spool, image.identity.layers[0].digest))
            with pytest.raises(BundleError, match="does not have the digest in its name"):
                pack_spooled_images({0: digest}, spool, "gzip", {}, cache)
        again = pack_spooled_images({0: digest}, spool, "gzip", {}, cache, verified_later=True)[0]
        assert again.identity == image.identity
        archive = tmp_path / f"{name}.tar"
        write_archive(archive, [ArchiveEntry(again, (IMAGE.reference,))], 0)
        expected = [ExpectedImage(again.identity, (IMAGE.reference,))]
        if name == "damaged":
            with pytest.raises(BundleError, match="does not have the digest in its name"):
                verify_archive(archive, expected=expected, unpack=again.unverified)
        else:
            assert verify_archive(archive, expected=expected, unpack=again.unverified).images


@pytest.mark.parametrize("filled_by", ["save", "export"])
def test_only_uncached_layers_are_sent_and_unpacked(filled_by: str, tmp_path: Path, calls: list[str]) -> None:
    cache = cached(tmp_path)
    if filled_by == "save":
        image = packed(SAVES["containerd"], tmp_path / "first", cache)
    else:
        image, sent = exported(SAVES["containerd"], tmp_path / "first", cache)
        assert len(sent) == 4, "two layers, a config, a manifest"
    cache.save_pending(tmp_path / "first", spooled_digests(tmp_path / "first"))
    assert calls == ["measure_unpacked"] * 2
    calls.clear()
    added = SampleImage(IMAGE.reference, (*IMAGE.layers, layer({"app/new": b"n" * 1000})))
    cache = LayerCache(tmp_path / "cache", LIMIT, [sha256(content) for content in added.layers])
    again, sent = exported(layout(added, compressed=True), tmp_path / "second", cache)
    assert len(sent) == 3
    assert calls == ["measure_unpacked"]
    assert again.identity.layers[:2] == image.identity.layers
    assert again.identity.diff_ids == tuple(map(sha256, added.layers))


def test_layers_that_a_scan_has_unpacked_are_only_hashed(tmp_path: Path, calls: list[str]) -> None:
    cache, save = cached(tmp_path), SAVES["containerd"]
    request = {0: ImageRequest(IMAGE.reference)}
    scanned = scan_images(stream(tar(save), 65536), request, matcher=SecretMatcher({}), directories=[])[0]
    for scanned_layer in scanned.layers:
        assert scanned_layer.blob
        cache.save_unpacked(scanned_layer.blob)
    image, _ = exported(save, tmp_path / "first", cache)
    assert calls == []
    assert image.identity == packed(save, tmp_path / "second", None).identity


def test_uncompressed_blobs_are_compressed(tmp_path: Path) -> None:
    save = layout(IMAGE, compressed=False)
    image, _ = exported(save, tmp_path / "first", cached(tmp_path), "zstd")
    assert image.identity == packed(save, tmp_path / "second", None, "zstd").identity
    assert len(image.unverified) == 2


def test_blobs_with_wrong_digest_are_refused(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(layout(IMAGE, compressed=True)):
        if not name.startswith("blobs/"):
            continue
        assert isinstance(content, bytes)
        changed = content[:4] + b"\x01" + content[5:] if content.startswith(b"\x1f\x8b") else content + b" "
        damaged = [(member, changed if member == name else data) for member, data in SAVES["containerd"]]
        cache = cached(tmp_path)
        with pytest.raises(BundleError):
            exported(damaged, tmp_path / str(number), cache)


def test_layer_similar_to_cached_one_is_detected(tmp_path: Path) -> None:
    """Both have the same size and start, and both are expected."""
    content = random.Random(2).randbytes(3_000_000)
    one, other = (SampleImage(IMAGE.reference, (layer({"x": content[:-1] + end}),)) for end in (b"a", b"b"))
    expected = [sha256(image.layers[0]) for image in (one, other)]
    cache = LayerCache(tmp_path / "cache", LIMIT, expected)
    packed(legacy(one), tmp_path / "one", cache)
    cache.save_pending(tmp_path / "one", spooled_digests(tmp_path / "one"))
    with pytest.raises(CacheMissError):
        packed(legacy(other), tmp_path / "other", LayerCache(tmp_path / "cache", LIMIT, expected))
    own = LayerCache(tmp_path / "cache", LIMIT, expected[1:])
    assert packed(legacy(other), tmp_path / "own", own).identity.diff_ids == (expected[1],)


def test_unverified_layers_are_not_cached(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    image = packed(SAVES["legacy"], tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", {image.identity.layers[0].digest})
    assert [path.name for path in entries(tmp_path, "blobs")] == [
        image.identity.layers[0].digest.removeprefix("sha256:")
    ]


def test_blobs_that_are_linked_from_an_engine_are_not_kept(tmp_path: Path, calls: list[str]) -> None:
    cache = replace(cached(tmp_path), keeps_engine_blobs=False)
    image, _ = exported(SAVES["containerd"], tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", spooled_digests(tmp_path / "first"))
    assert not (tmp_path / "cache" / "blobs").exists()
    assert calls == ["measure_unpacked"] * 2
    assert exported(SAVES["containerd"], tmp_path / "second", cached(tmp_path))[0].identity == image.identity
    assert calls == ["measure_unpacked"] * 2, "what they unpack to is kept"


def test_cache_is_pruned_to_limit(tmp_path: Path) -> None:
    first(SAVES["legacy"], tmp_path)
    small = cached(tmp_path, limit=100_000)
    small.save_pending(tmp_path / "first", ())
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert 0 < len(files) < 4
    assert sum(path.stat().st_size for path in files) <= 100_000
    assert packed(SAVES["legacy"], tmp_path / "again", small).identity.diff_ids == tuple(map(sha256, IMAGE.layers))


def test_concurrent_runs_share_cache_while_it_is_pruned(tmp_path: Path) -> None:
    expected = packed(SAVES["legacy"], tmp_path / "plain", None).identity
    identities: list[object] = []

    def run(number: int) -> None:
        for turn in range(4):
            spool = tmp_path / f"{number}-{turn}"
            cache = cached(tmp_path, limit=10_000 if number == 0 else LIMIT)
            try:
                identities.append(packed(SAVES["legacy"], spool, cache).identity)
                cache.save_pending(spool, spooled_digests(spool))
            except CacheMissError:
                identities.append(packed(SAVES["legacy"], tmp_path / f"{spool.name}-retry", None).identity)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert identities == [expected] * 16
    assert list((tmp_path / "cache").rglob(".*")) == []
