"""What was compressed or unpacked once is not again; whatever the cache holds, the image is the one that was saved."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.errors import BundleError
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
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compressed or unpacked, a word each."""
    words: list[str] = []

    def told(name: str) -> None:
        real = getattr(layers, name)

        def wrapped(*args: object, **options: object) -> object:
            words.append(name)
            return real(*args, **options)

        monkeypatch.setattr(layers, name, wrapped)

    told("compress")
    told("measure")
    return words


def packed(
    members: list[tuple[str, bytes | str]], place: Path, cache: LayerCache | None, compression: Compression = "gzip"
) -> PackedImage:
    place.mkdir()
    return pack_saved_images(
        stream(tar(members), 65536), {0: ImageRequest(IMAGE.reference)}, place, compression, cache
    )[0]


def exported(
    members: list[tuple[str, bytes | str]], place: Path, cache: LayerCache, compression: Compression = "gzip"
) -> tuple[PackedImage, list[str]]:
    """The image out of a folder of blobs, and which blobs had to be sent for it."""
    place.mkdir()
    sent: list[str] = []

    def send() -> None:
        for name, content in members:
            target = place / name.rpartition("/")[2]
            if name.startswith("blobs/") and isinstance(content, bytes) and not target.exists():
                target.write_bytes(content)
                sent.append(target.name)

    known = cache.fill_spool(place, send)
    index = json.loads(dict(members)["index.json"])
    return pack_spooled_images({0: index["manifests"][0]["digest"]}, place, compression, known, cache)[0], sent


def cached(folder: Path, limit: int = LIMIT) -> LayerCache:
    return LayerCache(folder / "cache", limit, [sha256(each) for each in IMAGE.layers])


def entries(folder: Path, *kinds: str) -> list[Path]:
    """The files of the cache of these kinds."""
    return [path for kind in kinds for path in sorted((folder / "cache" / kind).iterdir())]


def everything(spool: Path) -> set[str]:
    """The digests of all that lies in the spool."""
    return {f"sha256:{path.name}" for path in spool.iterdir()}


def first(members: list[tuple[str, bytes | str]], folder: Path) -> PackedImage:
    cache = cached(folder)
    image = packed(members, folder / "first", cache)
    cache.save_pending(folder / "first", everything(folder / "first"))
    return image


@pytest.mark.parametrize("kind", SAVES)
def test_the_second_time_nothing_is_compressed_or_unpacked(kind: str, tmp_path: Path, worked: list[str]) -> None:
    image = first(SAVES[kind], tmp_path)
    assert len(worked) == (2 if kind == "containerd" else 4)
    worked.clear()
    again = packed(SAVES[kind], tmp_path / "second", cached(tmp_path))
    assert worked == []
    assert again.identity == image.identity
    assert again.manifest == image.manifest
    assert again.unverified == frozenset()
    for each in again.identity.layers:
        assert sha256(layers.blob_path(tmp_path / "second", each.digest).read_bytes()) == each.digest


def test_only_what_was_compressed_just_now_must_be_unpacked_again(tmp_path: Path) -> None:
    assert first(SAVES["legacy"], tmp_path).unverified == {
        each.digest for each in packed(SAVES["classic"], tmp_path / "x", None).identity.layers
    }
    assert packed(SAVES["containerd"], tmp_path / "y", None).unverified == frozenset()


def test_another_codec_is_another_entry(tmp_path: Path, worked: list[str]) -> None:
    first(SAVES["classic"], tmp_path)
    worked.clear()
    packed(SAVES["classic"], tmp_path / "second", cached(tmp_path), "zstd")
    assert worked.count("compress") == 2


def every_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [every_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("kind", ["legacy", "containerd"])
def test_a_damaged_cache_is_found_out_mended_and_never_believed(
    kind: str, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    image = first(SAVES[kind], tmp_path)
    folders = ("unpacked",) if kind == "containerd" else ("compressed", "blobs")
    files = entries(tmp_path, *folders)
    assert len(files) == 2 * len(folders)
    for number, path in enumerate(files):
        data = path.read_bytes()
        spoil(path)
        place = tmp_path / f"again{number}"
        cache = cached(tmp_path)
        try:
            again = packed(SAVES[kind], place, cache)
        except CacheMissError:
            place = tmp_path / f"afresh{number}"
            cache.distrust()
            again = packed(SAVES[kind], place, cache)
        assert again.identity == image.identity
        cache.save_pending(place, everything(place))
        for each in again.identity.layers:
            assert sha256(layers.blob_path(place, each.digest).read_bytes()) == each.digest
        assert path.exists(), f"{path.name} was not mended"
        if path.suffix != ".json":
            assert path.read_bytes() == data


@pytest.mark.parametrize("spoil", [every_byte, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_blob_that_was_kept_is_sent_again(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    save = SAVES["containerd"]
    cache = cached(tmp_path)
    image, _ = exported(save, tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", everything(tmp_path / "first"))
    files = entries(tmp_path, "compressed", "blobs")
    assert len(files) == 4
    for number, path in enumerate(files):
        data = path.read_bytes()
        spoil(path)
        place, cache = tmp_path / f"again{number}", cached(tmp_path)
        again, sent = exported(save, place, cache)
        assert (again.identity, again.manifest) == (image.identity, image.manifest)
        assert len([name for name in sent if (place / name).stat().st_size > 1000]) == 1
        cache.save_pending(place, everything(place))
        assert path.read_bytes() == data, f"{path.name} was not mended"
        for each in again.identity.layers:
            assert sha256(layers.blob_path(place, each.digest).read_bytes()) == each.digest


@pytest.mark.parametrize("filled_by", ["save", "export"])
def test_only_what_the_cache_lacks_is_sent_and_unpacked(filled_by: str, tmp_path: Path, worked: list[str]) -> None:
    cache = cached(tmp_path)
    if filled_by == "save":
        image = packed(SAVES["containerd"], tmp_path / "first", cache)
    else:
        image, sent = exported(SAVES["containerd"], tmp_path / "first", cache)
        assert len(sent) == 4, "two layers, a config, a manifest"
    cache.save_pending(tmp_path / "first", everything(tmp_path / "first"))
    assert worked == ["measure"] * 2
    worked.clear()
    added = SampleImage(IMAGE.reference, (*IMAGE.layers, layer({"app/new": b"n" * 1000})))
    cache = LayerCache(tmp_path / "cache", LIMIT, [sha256(each) for each in added.layers])
    again, sent = exported(layout(added, compressed=True), tmp_path / "second", cache)
    assert len(sent) == 3
    assert worked == ["measure"]
    assert again.identity.layers[:2] == image.identity.layers
    assert again.identity.diff_ids == tuple(map(sha256, added.layers))


def test_what_an_engine_in_question_cannot_read_is_compressed_out_of_the_blobs(tmp_path: Path) -> None:
    save = layout(IMAGE, compressed=False)
    image, _ = exported(save, tmp_path / "first", cached(tmp_path), "zstd")
    assert image.identity == packed(save, tmp_path / "second", None, "zstd").identity
    assert len(image.unverified) == 2


def test_blobs_that_are_not_what_they_are_named_by_are_refused(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(layout(IMAGE, compressed=True)):
        if not name.startswith("blobs/"):
            continue
        assert isinstance(content, bytes)
        changed = content[:4] + b"\x01" + content[5:] if content.startswith(b"\x1f\x8b") else content + b" "
        lie = [(each, changed if each == name else data) for each, data in SAVES["containerd"]]
        cache = cached(tmp_path)
        with pytest.raises(BundleError):
            exported(lie, tmp_path / str(number), cache)


def test_a_layer_that_looks_like_a_known_one_is_found_out(tmp_path: Path) -> None:
    """Same size, same beginning, and both belong to the set."""
    content = random.Random(2).randbytes(3_000_000)
    one, other = (SampleImage(IMAGE.reference, (layer({"x": content[:-1] + end}),)) for end in (b"a", b"b"))
    expected = [sha256(each.layers[0]) for each in (one, other)]
    cache = LayerCache(tmp_path / "cache", LIMIT, expected)
    packed(legacy(one), tmp_path / "one", cache)
    cache.save_pending(tmp_path / "one", everything(tmp_path / "one"))
    with pytest.raises(CacheMissError):
        packed(legacy(other), tmp_path / "other", LayerCache(tmp_path / "cache", LIMIT, expected))
    own = LayerCache(tmp_path / "cache", LIMIT, expected[1:])
    assert packed(legacy(other), tmp_path / "own", own).identity.diff_ids == (expected[1],)


def test_what_was_not_read_back_is_not_kept(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    image = packed(SAVES["legacy"], tmp_path / "first", cache)
    cache.save_pending(tmp_path / "first", {image.identity.layers[0].digest})
    assert [path.name for path in entries(tmp_path, "blobs")] == [
        image.identity.layers[0].digest.removeprefix("sha256:")
    ]


def test_the_cache_stays_below_its_limit_and_drops_what_was_not_used(tmp_path: Path) -> None:
    first(SAVES["legacy"], tmp_path)
    small = cached(tmp_path, limit=100_000)
    small.save_pending(tmp_path / "first", ())
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert 0 < len(left) < 4
    assert sum(path.stat().st_size for path in left) <= 100_000
    assert packed(SAVES["legacy"], tmp_path / "again", small).identity.diff_ids == tuple(map(sha256, IMAGE.layers))


def test_many_runs_at_once_share_it_while_it_is_emptied(tmp_path: Path) -> None:
    want = packed(SAVES["legacy"], tmp_path / "plain", None).identity
    found: list[object] = []

    def run(number: int) -> None:
        for turn in range(4):
            place = tmp_path / f"{number}-{turn}"
            cache = cached(tmp_path, limit=10_000 if number == 0 else LIMIT)
            try:
                found.append(packed(SAVES["legacy"], place, cache).identity)
                cache.save_pending(place, everything(place))
            except CacheMissError:
                found.append(packed(SAVES["legacy"], tmp_path / f"{place.name}-afresh", None).identity)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 16
    assert list((tmp_path / "cache").rglob(".*")) == []
