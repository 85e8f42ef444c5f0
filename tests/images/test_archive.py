"""Image archives: writing, reading back, and refusing damaged ones."""

from __future__ import annotations

import gzip
import json
import random
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.parts import MAX_COMPRESSED_BYTES
from lyra_tasks.images.archive.verify import ExpectedImage, verify_archive
from lyra_tasks.images.archive.write import ArchiveEntry, write_archive, write_layout
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


def entry(packed: PackedImage, references: Sequence[str] = REFERENCES) -> ArchiveEntry:
    return ArchiveEntry(packed, references, {"org.opencontainers.image.version": "1.0"})


def expect(packed: PackedImage, references: Sequence[str] = REFERENCES) -> list[ExpectedImage]:
    return [ExpectedImage(packed.identity, references)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "web.tar"
    write_archive(path, [entry(image(tmp_path / "spool"))], EPOCH)
    return path


def members_of(path: Path) -> Members:
    with tarfile.open(path) as file:
        return {member.name: file.extractfile(member).read() for member in file}  # type: ignore[union-attr]


def rewrite(path: Path, members: Members) -> None:
    data = [
        format_tar_header(name, len(content), EPOCH) + content + bytes(padding_size(len(content)))
        for name, content in members.items()
    ]
    path.write_bytes(b"".join([*data, bytes(1024)]))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_archive_verifies_as_same_image(compression: Compression, tmp_path: Path) -> None:
    packed, path = image(tmp_path / "spool", compression), tmp_path / "web.tar"
    write_archive(path, [entry(packed)], EPOCH)
    for unpack in (True, False):
        contents = verify_archive(path, expected=expect(packed), unpack=unpack)
        (archived,) = contents.images
        assert archived.config_digest == sha256(SAMPLE.config)
        assert archived.manifest_digest == packed.identity.manifest_digest
        assert tuple(archived.config.rootfs.diff_ids) == packed.identity.diff_ids
        assert archived.references == ("docker.io/shop/web:1.0", "docker.io/shop/web:latest")
        assert archived.annotations["docker.io/shop/web:1.0"] == {
            "org.opencontainers.image.version": "1.0",
            "org.opencontainers.image.ref.name": "shop/web:1.0",
        }
        assert contents.size == path.stat().st_size
        assert f"sha256:{contents.sha256}" == sha256(path.read_bytes())


def test_archive_of_compressed_image_keeps_manifest(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    save = stream(tar(layout(SAMPLE, compressed=True)))
    packed = pack_saved_images(save, {0: ImageRequest(SAMPLE.reference)}, tmp_path / "spool", "gzip")[0]
    write_archive(tmp_path / "web.tar", [entry(packed)], EPOCH)
    (archived,) = verify_archive(tmp_path / "web.tar", expected=expect(packed)).images
    assert archived.manifest_digest == sha256(packed.manifest)


def test_archive_is_reproducible_and_sorted(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    backwards = tuple(reversed(REFERENCES))
    write_archive(again, [entry(image(tmp_path / "other"), backwards)], EPOCH)
    assert again.read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as file:
        entries = file.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.uid, entry.gid, entry.uname, entry.mode, entry.mtime, entry.isreg()) for entry in entries} == {
        (0, 0, "", 0o644, EPOCH, True)
    }


def test_archive_never_overwrites_file(archive: Path, tmp_path: Path) -> None:
    original = archive.read_bytes()
    with pytest.raises(FileExistsError):
        write_archive(archive, [entry(image(tmp_path / "spool"))], EPOCH)
    assert archive.read_bytes() == original


def test_archive_stores_repeated_layer_once(tmp_path: Path) -> None:
    twice = SampleImage("shop/web:1.0", (SAMPLE.layers[0], SAMPLE.layers[1], SAMPLE.layers[0]))
    (tmp_path / "spool").mkdir()
    packed = pack_saved_images(
        stream(tar(layout(twice, compressed=False))), {0: ImageRequest(twice.reference)}, tmp_path / "spool", "gzip"
    )
    write_archive(tmp_path / "web.tar", [entry(packed[0])], EPOCH)
    assert len(members_of(tmp_path / "web.tar")) == 7
    (archived,) = verify_archive(tmp_path / "web.tar").images
    assert len(archived.manifest.layers) == 3


def pack_both(spool: Path, compression: Compression = "gzip") -> list[PackedImage]:
    """Pack the sample and an image that shares its base."""
    spool.mkdir()
    samples = (SAMPLE, SampleImage("shop/counter:1.0", (SAMPLE.layers[0], layer({"counter": b"c" * 5000}))))
    return [
        pack_saved_images(stream(tar(legacy(sample))), {0: ImageRequest(sample.reference)}, spool, compression)[0]
        for sample in samples
    ]


COUNTER = ("shop/counter:1.0",)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_archive_of_several_images_has_each_layer_once(compression: Compression, tmp_path: Path) -> None:
    web, counter = pack_both(tmp_path / "spool", compression)
    entries = [entry(web), entry(counter, COUNTER)]
    path, backwards = tmp_path / "shop.tar", tmp_path / "backwards.tar"
    write_archive(path, entries, EPOCH)
    write_archive(backwards, list(reversed(entries)), EPOCH)
    assert path.read_bytes() == backwards.read_bytes()
    assert len(members_of(path)) == 3 + 3 + 4, "documents, layers, configs and manifests"
    expected = [*expect(web), *expect(counter, COUNTER)]
    contents = verify_archive(path, expected=expected)
    assert {image.config_digest for image in contents.images} == {
        web.identity.config_digest, counter.identity.config_digest
    }  # fmt: skip
    index = json.loads(members_of(path)["index.json"])["manifests"]
    names = [descriptor["annotations"]["org.opencontainers.image.ref.name"] for descriptor in index]
    assert sorted(names) == ["shop/counter:1.0", "shop/web:1.0", "shop/web:latest"], "programs select images by it"


def test_shared_layer_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web, counter = pack_both(tmp_path / "spool")
    write_archive(tmp_path / "shop.tar", [entry(web), entry(counter, COUNTER)], EPOCH)
    digests: list[str] = []

    def verify_layer(*arguments: object) -> None:
        digests.append(str(arguments[2]))

    monkeypatch.setattr("lyra_tasks.images.archive.verify._verify_layer", verify_layer)
    verify_archive(tmp_path / "shop.tar")
    layers = {item.digest for image in (web, counter) for item in image.identity.layers}
    assert (sorted(digests), len(digests)) == (sorted(layers), 3)


def test_identical_images_are_one_with_all_names(tmp_path: Path) -> None:
    packed, path = image(tmp_path / "spool"), tmp_path / "shop.tar"
    entries = [
        ArchiveEntry(packed, [f"shop/{name}:1.0"], {"lyra.origin.reference": name}) for name in ("cache", "queue")
    ]
    write_archive(path, entries, EPOCH)
    (listed,) = json.loads(members_of(path)["manifest.json"])
    assert listed["RepoTags"] == ["shop/cache:1.0", "shop/queue:1.0"]
    (archived,) = verify_archive(
        path, expected=[ExpectedImage(packed.identity, entry.references) for entry in entries]
    ).images
    origins = {name: annotations["lyra.origin.reference"] for name, annotations in archived.annotations.items()}
    assert origins == {"docker.io/shop/cache:1.0": "cache", "docker.io/shop/queue:1.0": "queue"}


def test_layout_of_one_image_has_no_name(tmp_path: Path) -> None:
    packed, directory = image(tmp_path / "spool"), tmp_path / "layout"
    write_layout(directory, packed)
    (descriptor,) = json.loads((directory / "index.json").read_text())["manifests"]
    assert (descriptor["digest"], descriptor["annotations"]) == (packed.identity.manifest_digest, {})
    for digest in (packed.identity.manifest_digest, *(item.digest for item in packed.identity.layers)):
        blob_file = directory / "blobs/sha256" / digest.removeprefix("sha256:")
        assert sha256(blob_file.read_bytes()) == digest


def test_archive_that_other_programs_misread_is_refused(tmp_path: Path) -> None:
    web, counter = pack_both(tmp_path / "spool")
    path = tmp_path / "shop.tar"
    write_archive(path, [entry(web), entry(counter, COUNTER)], EPOCH)
    members = members_of(path)
    _edit("index.json", b'ref.name":"shop/counter:1.0"', b'ref.name":"1.0"')(members)
    rewrite(path, members)
    with pytest.raises(BundleError, match="contains other images than expected") as error:
        verify_archive(path, expected=[*expect(web), *expect(counter, COUNTER)])
    assert error.value.details == ("shop/counter:1.0: org.opencontainers.image.ref.name is 1.0",)


def test_archive_with_one_image_less_or_more_is_refused(tmp_path: Path) -> None:
    web, counter = pack_both(tmp_path / "spool")
    path = tmp_path / "shop.tar"
    write_archive(path, [entry(web)], EPOCH)
    with pytest.raises(BundleError, match="other images") as error:
        verify_archive(path, expected=[*expect(web), *expect(counter, COUNTER)])
    assert error.value.details == ("shop/counter:1.0: missing",)
    path.unlink()
    write_archive(path, [entry(web), entry(counter, COUNTER)], EPOCH)
    with pytest.raises(BundleError, match="other images") as error:
        verify_archive(path, expected=expect(web))
    (detail,) = error.value.details
    assert detail == f"{counter.identity.manifest_digest}: has the references docker.io/shop/counter:1.0"


def test_two_images_with_one_name_are_refused(tmp_path: Path) -> None:
    web, counter = pack_both(tmp_path / "spool")
    path = tmp_path / "shop.tar"
    write_archive(path, [entry(web), entry(counter, REFERENCES)], EPOCH)
    with pytest.raises(BundleError, match=r"index\.json: lists docker\.io/shop/web:1\.0 twice"):
        verify_archive(path)


def test_archive_of_different_image_lists_differences(archive: Path, tmp_path: Path) -> None:
    identity = image(tmp_path / "spool").identity
    other = ExpectedImage(replace(identity, config_digest=sha256(b""), platform="linux/arm64"), REFERENCES)
    with pytest.raises(BundleError, match="other images than expected") as error:
        verify_archive(archive, expected=[other])
    assert [detail.split(": ")[:2] for detail in error.value.details] == [
        ["shop/web:1.0", "config digest"], ["shop/web:1.0", "platform"]
    ]  # fmt: skip


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
    "an unreferenced member": (lambda m: m.update([blob(b"extra")]), "is not referenced"),
    "a member with an unknown name": (lambda m: m.update({"etc/passwd": b""}), "unexpected member"),
    "a name outside of the archive": (lambda m: m.update({"../blobs": b""}), "unexpected member"),
    "an absolute name": (lambda m: m.update({"/index.json": b""}), "unexpected member"),
    "a missing layer": (lambda m: m.pop(_largest(m)), "is missing"),
    "a missing index": (lambda m: m.pop("index.json"), "index.json is missing"),
    "a missing docker manifest": (lambda m: m.pop("manifest.json"), "manifest.json is missing"),
    "a missing layout": (lambda m: m.pop("oci-layout"), "oci-layout is missing"),
    "another layout version": (_edit("oci-layout", b"1.0.0", b"2.0.0"), "imageLayoutVersion"),
    "a layer with a changed byte": (lambda m: m.update({_largest(m): m[_largest(m)][:-9] + bytes(9)}), "blobs/sha256/"),
    "a layer with different content": (lambda m: m.update({_largest(m): bytes(len(m[_largest(m)]))}), "unpacks to"),
    "a truncated layer": (lambda m: m.update({_largest(m): m[_largest(m)][:-1]}), "bytes instead of"),
    "a duplicate key": (_edit("index.json", b'"schemaVersion"', b'"manifests":[],"schemaVersion"'), "duplicate key"),
    "a wrong size": (_edit("index.json", b'"size":', b'"size":1'), "describes sha256:[0-9a-f]+ in two ways"),
    "a negative size": (_edit("index.json", b'"size":', b'"size":-'), "size"),
    "a digest that is a path": (_edit("index.json", b"sha256:", b"sha256:../"), "digest"),
    "an empty index": (lambda m: m.update({"index.json": b'{"manifests":[]}'}), "lists no image"),
    "JSON that is not UTF-8": (
        lambda m: m.update({"index.json": '{"manifests":[]}'.encode("utf-16")}),
        "not valid JSON",
    ),
    "not JSON": (lambda m: m.update({"index.json": b"{"}), "not valid JSON"),
    "deeply nested JSON": (lambda m: m.update({"index.json": b"[" * 100_000}), "not valid JSON"),
    "names in one document only": (_edit("manifest.json", b"shop/web:1.0", b"shop/web:2.0"), "different image names"),
    "layers in a different order": (_swap_layers, "describes different images"),
    "a document that is too large": (lambda m: m.update({"index.json": b" " * 5_000_000}), "larger than"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_archive_damage_is_refused_with_its_name(what: str, archive: Path) -> None:
    change, problem = CHANGES[what]
    members = members_of(archive)
    change(members)
    rewrite(archive, members)
    with pytest.raises(BundleError, match=problem) as error:
        verify_archive(archive)
    assert str(archive) in error.value.message


def test_archive_member_order_does_not_matter(archive: Path) -> None:
    rewrite(archive, dict(reversed(members_of(archive).items())))
    assert verify_archive(archive).images[0].references


def test_archive_with_links_devices_or_duplicates_is_refused(archive: Path) -> None:
    whole = archive.read_bytes()[:-1024]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("index.json")
        info.type, info.linkname = kind, "oci-layout"
        archive.write_bytes(whole + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        with pytest.raises(BundleError, match="not a regular file"):
            verify_archive(archive)
    archive.write_bytes(whole + format_tar_header("index.json", 0, 0) + bytes(1024))
    with pytest.raises(BundleError, match="duplicate member"):
        verify_archive(archive)


def test_archive_member_past_end_of_file_is_refused(archive: Path) -> None:
    archive.write_bytes(format_tar_header("blobs/sha256/" + "0" * 64, 2**60, 0) + bytes(1024))
    with pytest.raises(BundleError, match="past the end"):
        verify_archive(archive)


def test_archive_with_too_many_members_is_refused(archive: Path) -> None:
    rewrite(archive, {f"blobs/sha256/{number:064x}": b"" for number in range(20_001)})
    with pytest.raises(BundleError, match="more than 20000 members"):
        verify_archive(archive)


def test_layer_unpacking_beyond_limit_is_refused(archive: Path, tmp_path: Path) -> None:
    identity = image(tmp_path / "spool").identity
    small = replace(identity, layers=tuple(replace(layer, unpacked_size=1000) for layer in identity.layers))
    with pytest.raises(BundleError, match="unpacks to more than the 1000 bytes"):
        verify_archive(archive, expected=[ExpectedImage(small, REFERENCES)])


def test_layer_with_wrong_diff_id_is_refused_when_unpacked(tmp_path: Path) -> None:
    packed = image(tmp_path / "spool")
    wrong_config = SampleImage(SAMPLE.reference, (SAMPLE.layers[1], SAMPLE.layers[0])).config
    document = json.loads(packed.manifest)
    document["config"] |= {"digest": sha256(wrong_config), "size": len(wrong_config)}
    manifest = json.dumps(document).encode()
    identity = replace(packed.identity, config_digest=sha256(wrong_config), manifest_digest=sha256(manifest))
    wrong = PackedImage(identity, wrong_config, manifest, packed.spool, unverified=frozenset())
    write_archive(tmp_path / "web.tar", [entry(wrong)], EPOCH)
    (archived,) = verify_archive(tmp_path / "web.tar", unpack=False).images
    assert archived.config_digest == sha256(wrong_config)
    with pytest.raises(BundleError, match="but the config says"):
        verify_archive(tmp_path / "web.tar")


def test_archive_path_must_be_regular_file(archive: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.tar"
    link.symlink_to(archive)
    for path in (link, tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="not a regular file"):
            verify_archive(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(where=st.floats(0, 1), change=st.binary(min_size=1, max_size=600), cut=st.booleans())
def test_random_damage_is_refused_or_harmless(
    archive: Path, tmp_path: Path, where: float, change: bytes, cut: bool
) -> None:
    whole = archive.read_bytes()
    position = int(where * (len(whole) - 1))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole[:position] if cut else whole[:position] + change + whole[position + len(change) :])
    try:
        contents = verify_archive(damaged)
    except BundleError as error:
        assert str(damaged) in error.message
    else:
        assert not cut
        assert [archived.config_digest for archived in contents.images] == [sha256(SAMPLE.config)]


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        pack_saved_images(stream(data, 100), {0: ImageRequest("x")}, Path("/nonexistent"), "gzip")


def test_layer_verified_later_is_refused_when_read_back(tmp_path: Path) -> None:
    """The name of the layer does not match its bytes, which are not hashed before the archive is read back."""
    original, replaced = layer({"x": b"true"}), layer({"x": b"false"})
    image = SampleImage("shop/web:1.0", (original,))
    name, _ = blob(original)
    members = [(member, replaced if member == name else data) for member, data in layout(image, compressed=False)]
    for number, variant in enumerate((members, layout(image, compressed=False))):
        spool = tmp_path / f"spool{number}"
        spool.mkdir()
        if variant is members:
            with pytest.raises(BundleError, match="other layers than its config"):
                pack_saved_images(stream(tar(variant)), {0: ImageRequest(image.reference)}, spool, "gzip")
        packed = pack_saved_images(
            stream(tar(variant)), {0: ImageRequest(image.reference)}, spool, "gzip", verified_later=True
        )[0]
        write_archive(tmp_path / f"{number}.tar", [entry(packed)], EPOCH)
        if variant is members:
            with pytest.raises(BundleError, match=f"but the config says {sha256(original)}"):
                verify_archive(tmp_path / f"{number}.tar", expected=expect(packed), unpack=packed.unverified)
        else:
            verify_archive(tmp_path / f"{number}.tar", expected=expect(packed), unpack=packed.unverified)


def test_archive_compressed_as_a_whole_is_verified_and_limited(archive: Path) -> None:
    plain = archive.read_bytes()
    archive.write_bytes(gzip.compress(plain))
    assert verify_archive(archive).size == archive.stat().st_size < len(plain)
    archive.write_bytes(gzip.compress(plain + bytes(MAX_COMPRESSED_BYTES)))
    with pytest.raises(BundleError, match="unpacks to more than the 1048576 bytes"):
        verify_archive(archive)
    archive.write_bytes(gzip.compress(plain)[:-9])
    with pytest.raises(BundleError, match="gzip data ends too early"):
        verify_archive(archive)
