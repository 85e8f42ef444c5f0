"""The archive that is written reads back, and no other does."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.archive.write import write_archive
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.pack import ImageRequest, PackedImage, pack_saved_images
from lyra_tasks.images.stream.tar import format_tar_header, padding_size
from tests.images.saves import SampleImage, blob, layer, layout, legacy, sha256, stream, tar

EPOCH = 1_700_000_000
SAMPLE = SampleImage(
    "shop/web:1.0", (layer({"base": b"base" * 9000}), layer({"app": random.Random(1).randbytes(100_000)}))
)
REFERENCES = ("shop/web:1.0", "shop/web:latest")

Members = dict[str, bytes]
Change = Callable[[Members], object]


def image(spool: Path, compression: Compression = "gzip") -> PackedImage:
    spool.mkdir(exist_ok=True)
    return pack_saved_images(stream(tar(legacy(SAMPLE))), {0: ImageRequest("shop/web:1.0")}, spool, compression)[0]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "web.tar"
    write_archive(path, image(tmp_path / "spool"), REFERENCES, {"org.opencontainers.image.version": "1.0"}, EPOCH)
    return path


def members_of(path: Path) -> Members:
    with tarfile.open(path) as file:
        return {each.name: file.extractfile(each).read() for each in file}  # type: ignore[union-attr]


def rewrite(path: Path, members: Members) -> None:
    data = [
        format_tar_header(name, len(each), EPOCH) + each + bytes(padding_size(len(each)))
        for name, each in members.items()
    ]
    path.write_bytes(b"".join([*data, bytes(1024)]))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_was_written_reads_back_as_the_same_image(compression: Compression, tmp_path: Path) -> None:
    packed, path = image(tmp_path / "spool", compression), tmp_path / "web.tar"
    write_archive(path, packed, REFERENCES, {"org.opencontainers.image.version": "1.0"}, EPOCH)
    for unpack in (True, False):
        contents = verify_archive(path, expected=packed.identity, unpack=unpack)
        assert contents.config_digest == sha256(SAMPLE.config)
        assert contents.manifest_digest == packed.identity.manifest_digest
        assert contents.diff_ids == packed.identity.diff_ids
        assert contents.references == ("docker.io/shop/web:1.0", "docker.io/shop/web:latest")
        assert contents.annotations == {"org.opencontainers.image.version": "1.0"}
        assert contents.size == path.stat().st_size
        assert f"sha256:{contents.sha256}" == sha256(path.read_bytes())


def test_an_image_that_came_compressed_is_archived_with_its_own_manifest(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    save = stream(tar(layout(SAMPLE, compressed=True)))
    packed = pack_saved_images(save, {0: ImageRequest(SAMPLE.reference)}, tmp_path / "spool", "gzip")[0]
    write_archive(tmp_path / "web.tar", packed, REFERENCES, {}, EPOCH)
    contents = verify_archive(tmp_path / "web.tar", expected=packed.identity)
    assert contents.manifest_digest == sha256(packed.manifest)


def test_the_same_image_is_the_same_bytes_with_plain_sorted_headers(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    backwards = tuple(reversed(REFERENCES))
    write_archive(again, image(tmp_path / "other"), backwards, {"org.opencontainers.image.version": "1.0"}, EPOCH)
    assert again.read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as file:
        entries = file.getmembers()
    assert [each.name for each in entries] == sorted(each.name for each in entries)
    assert {(each.uid, each.gid, each.uname, each.mode, each.mtime, each.isreg()) for each in entries} == {
        (0, 0, "", 0o644, EPOCH, True)
    }


def test_an_archive_is_never_written_over_another(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(FileExistsError):
        write_archive(archive, image(tmp_path / "spool"), REFERENCES, {}, EPOCH)
    assert archive.read_bytes() == before


def test_a_layer_that_was_used_twice_is_there_once(tmp_path: Path) -> None:
    twice = SampleImage("shop/web:1.0", (SAMPLE.layers[0], SAMPLE.layers[1], SAMPLE.layers[0]))
    (tmp_path / "spool").mkdir()
    packed = pack_saved_images(
        stream(tar(layout(twice, compressed=False))), {0: ImageRequest(twice.reference)}, tmp_path / "spool", "gzip"
    )
    write_archive(tmp_path / "web.tar", packed[0], REFERENCES, {}, EPOCH)
    assert len(members_of(tmp_path / "web.tar")) == 7
    assert len(verify_archive(tmp_path / "web.tar").layer_digests) == 3


def test_an_archive_of_another_image_is_refused_with_each_difference(archive: Path, tmp_path: Path) -> None:
    identity = image(tmp_path / "spool").identity
    with pytest.raises(BundleError, match="another image") as error:
        verify_archive(archive, expected=replace(identity, config_digest=sha256(b""), platform="linux/arm64"))
    assert [each.partition(":")[0] for each in error.value.details] == ["config digest", "platform"]


def _edit(name: str, old: bytes, new: bytes) -> Change:
    def change(members: Members) -> None:
        assert old in members[name]
        members[name] = members[name].replace(old, new, 1)

    return change


def _largest(members: Members) -> str:
    return max(members, key=lambda name: len(members[name]))


def _swap_layers(members: Members) -> None:
    document = json.loads(members["manifest.json"])
    document[0]["Layers"].reverse()
    members["manifest.json"] = json.dumps(document).encode()


CHANGES: dict[str, tuple[Change, str]] = {
    "a member that belongs to nothing": (lambda m: m.update([blob(b"extra")]), "belongs to nothing"),
    "a member with a strange name": (lambda m: m.update({"etc/passwd": b""}), "does not belong"),
    "a name that leads out": (lambda m: m.update({"../blobs": b""}), "does not belong"),
    "an absolute name": (lambda m: m.update({"/index.json": b""}), "does not belong"),
    "a missing layer": (lambda m: m.pop(_largest(m)), "is missing"),
    "a missing index": (lambda m: m.pop("index.json"), "index.json is missing"),
    "a missing docker manifest": (lambda m: m.pop("manifest.json"), "manifest.json is missing"),
    "a missing layout": (lambda m: m.pop("oci-layout"), "oci-layout is missing"),
    "another layout version": (_edit("oci-layout", b"1.0.0", b"2.0.0"), "imageLayoutVersion"),
    "a layer with a changed byte": (lambda m: m.update({_largest(m): m[_largest(m)][:-9] + bytes(9)}), "blobs/sha256/"),
    "a layer of something else": (lambda m: m.update({_largest(m): bytes(len(m[_largest(m)]))}), "unpacks to"),
    "a layer that is too short": (lambda m: m.update({_largest(m): m[_largest(m)][:-1]}), "bytes instead of"),
    "a key that is there twice": (_edit("index.json", b'"schemaVersion"', b'"manifests":[],"schemaVersion"'), "twice"),
    "a size that is not the true one": (_edit("index.json", b'"size":', b'"size":1'), "must name one image"),
    "a negative size": (_edit("index.json", b'"size":', b'"size":-'), "size"),
    "a digest that is a path": (_edit("index.json", b"sha256:", b"sha256:../"), "digest"),
    "an index of nothing": (lambda m: m.update({"index.json": b'{"manifests":[]}'}), "must name one image"),
    "JSON that is not UTF-8": (
        lambda m: m.update({"index.json": '{"manifests":[]}'.encode("utf-16")}),
        "not valid JSON",
    ),
    "not JSON": (lambda m: m.update({"index.json": b"{"}), "not valid JSON"),
    "JSON without an end": (lambda m: m.update({"index.json": b"[" * 100_000}), "not valid JSON"),
    "names on one side only": (_edit("manifest.json", b"shop/web:1.0", b"shop/web:2.0"), "other names"),
    "layers in another order": (_swap_layers, "another image"),
    "a document without end": (lambda m: m.update({"index.json": b" " * 5_000_000}), "too large"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_refused_with_its_name_is_an_archive_with(what: str, archive: Path) -> None:
    change, problem = CHANGES[what]
    members = members_of(archive)
    change(members)
    rewrite(archive, members)
    with pytest.raises(BundleError, match=problem) as error:
        verify_archive(archive)
    assert str(archive) in error.value.message


def test_an_archive_whose_members_are_in_another_order_is_the_same_image(archive: Path) -> None:
    rewrite(archive, dict(reversed(members_of(archive).items())))
    assert verify_archive(archive).references


def test_links_devices_and_repeated_members_are_refused(archive: Path) -> None:
    whole = archive.read_bytes()[:-1024]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("index.json")
        info.type, info.linkname = kind, "oci-layout"
        archive.write_bytes(whole + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        with pytest.raises(BundleError, match="not a regular file"):
            verify_archive(archive)
    archive.write_bytes(whole + format_tar_header("index.json", 0, 0) + bytes(1024))
    with pytest.raises(BundleError, match="twice"):
        verify_archive(archive)


def test_a_size_in_a_header_beyond_the_end_of_the_file_is_refused(archive: Path) -> None:
    archive.write_bytes(format_tar_header("blobs/sha256/" + "0" * 64, 2**60, 0) + bytes(1024))
    with pytest.raises(BundleError, match="behind the end"):
        verify_archive(archive)


def test_too_many_members_are_refused(archive: Path) -> None:
    rewrite(archive, {f"blobs/sha256/{number:064x}": b"" for number in range(2000)})
    with pytest.raises(BundleError, match="more than 1024 members"):
        verify_archive(archive)


def test_a_layer_that_unpacks_to_more_than_it_may_is_stopped(archive: Path, tmp_path: Path) -> None:
    identity = image(tmp_path / "spool").identity
    small = replace(identity, layers=tuple(replace(each, unpacked_size=1000) for each in identity.layers))
    with pytest.raises(BundleError, match="unpacks to more than the 1000 bytes"):
        verify_archive(archive, expected=small)


def test_a_layer_is_unpacked_to_find_a_config_that_names_other_contents(tmp_path: Path) -> None:
    packed = image(tmp_path / "spool")
    liar = SampleImage(SAMPLE.reference, (SAMPLE.layers[1], SAMPLE.layers[0])).config
    document = json.loads(packed.manifest)
    document["config"] |= {"digest": sha256(liar), "size": len(liar)}
    manifest = json.dumps(document).encode()
    identity = replace(packed.identity, config_digest=sha256(liar), manifest_digest=sha256(manifest))
    lie = PackedImage(identity, liar, manifest, packed.spool, unverified=frozenset())
    write_archive(tmp_path / "web.tar", lie, REFERENCES, {}, EPOCH)
    assert verify_archive(tmp_path / "web.tar", unpack=False).config_digest == sha256(liar)
    with pytest.raises(BundleError, match="the config says"):
        verify_archive(tmp_path / "web.tar")


def test_a_link_to_an_archive_and_a_folder_are_not_archives(archive: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.tar"
    link.symlink_to(archive)
    for path in (link, tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="not a regular file"):
            verify_archive(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(where=st.floats(0, 1), change=st.binary(min_size=1, max_size=600), cut=st.booleans())
def test_a_damaged_archive_is_refused_or_still_the_same_image(
    archive: Path, tmp_path: Path, where: float, change: bytes, cut: bool
) -> None:
    whole = archive.read_bytes()
    place = int(where * (len(whole) - 1))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole[:place] if cut else whole[:place] + change + whole[place + len(change) :])
    try:
        contents = verify_archive(damaged)
    except BundleError as error:
        assert str(damaged) in error.message
    else:
        assert not cut
        assert contents.config_digest == sha256(SAMPLE.config)


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        pack_saved_images(stream(data, 100), {0: ImageRequest("x")}, Path("/nonexistent"), "gzip")


def test_a_layer_that_is_believed_until_it_is_read_back_is_found_out_then(tmp_path: Path) -> None:
    """Its name says one thing, and its bytes are another: nobody hashes them before the archive is read back."""
    true, false = layer({"x": b"true"}), layer({"x": b"false"})
    image = SampleImage("shop/web:1.0", (true,))
    name, _ = blob(true)
    members = [(each, false if each == name else data) for each, data in layout(image, compressed=False)]
    for number, changed in enumerate((members, layout(image, compressed=False))):
        spool = tmp_path / f"spool{number}"
        spool.mkdir()
        if changed is members:
            with pytest.raises(BundleError, match="not the ones its config names"):
                pack_saved_images(stream(tar(changed)), {0: ImageRequest(image.reference)}, spool, "gzip")
        found = pack_saved_images(
            stream(tar(changed)), {0: ImageRequest(image.reference)}, spool, "gzip", verified_later=True
        )[0]
        write_archive(tmp_path / f"{number}.tar", found, REFERENCES, {}, EPOCH)
        if changed is members:
            with pytest.raises(BundleError, match=f"and the config says {sha256(true)}"):
                verify_archive(tmp_path / f"{number}.tar", expected=found.identity, unpack=found.unverified)
        else:
            verify_archive(tmp_path / f"{number}.tar", expected=found.identity, unpack=found.unverified)
