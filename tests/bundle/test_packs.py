"""Packs without an engine: what is planned, what is left out, and that nothing that was changed passes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.index import read_manifest
from lyra_tasks.bundle.format.manifest import (
    BundledImage,
    BundleEntry,
    BundleIndex,
    ImageLayer,
    Manifest,
    write_document,
)
from lyra_tasks.bundle.pack.plan import PackFacts, collect_pack_facts, plan_pack
from lyra_tasks.bundle.pack.run import fill_pack
from lyra_tasks.bundle.verify.detect import verify_path
from lyra_tasks.bundle.verify.pack import verify_pack
from lyra_tasks.errors import BundleError, UsageError
from tests.bundle.test_receive_script import DIGESTS, MANIFEST
from tests.bundle.test_verify import made as made  # a fixture

LAYERS = tuple(
    ImageLayer(media_type="x", digest=f"sha256:{n:064x}", size=1000 * n, unpacked_size=3000 * n) for n in (1, 2, 3, 4)
)


def image_of(name: str, *numbers: int) -> BundledImage:
    """An image of these layers; what is in layer 1 is called `sha256:…101`."""
    (image,) = MANIFEST.images
    return image.model_copy(
        update={
            "name": name,
            "references": [f"shop/{name}:1"],
            "layers": [LAYERS[number - 1] for number in numbers],
            "diff_ids": [f"sha256:{100 + number:064x}" for number in numbers],
            "size": 100_000,
        }
    )


def facts(new: list[BundledImage], old: list[BundledImage] | None) -> PackFacts:
    older = MANIFEST.model_copy(update={"version": "1.0.0", "images": old or []})
    return PackFacts(
        bundle=Path("/bundle"),
        manifest=MANIFEST.model_copy(update={"images": new}),
        baseline=older if old is not None else None,
        target_directory=Path("/to"),
        max_part_bytes=None,
        documents_size=500,
        free_bytes=10**9,
    )


def without(new: BundledImage, *old: BundledImage) -> list[int]:
    (archive,) = plan_pack(facts([new], list(old))).deltas
    assert (archive.required_image is None) == (not archive.omitted_layers)
    assert archive.size == 100_000 - sum(1000 * int(digest[-2:], 16) for digest in archive.omitted_layers)
    return [int(digest[-2:], 16) for digest in archive.omitted_layers]


def test_only_the_lowest_layers_are_left_out_since_an_engine_knows_a_layer_with_those_below_it() -> None:
    assert without(image_of("web", 1, 2, 3), image_of("web", 1, 2, 4)) == [1, 2]
    assert without(image_of("web", 1, 2, 3), image_of("web", 1, 4, 3)) == [1]
    assert without(image_of("web", 1, 2, 3), image_of("web", 2, 3)) == []
    assert without(image_of("web", 1, 2), image_of("web", 1, 2, 3)) == [1, 2]
    assert without(image_of("web", 1, 2, 1), image_of("web", 1, 2)) == [2], "a blob that comes again higher up travels"


def test_a_layer_that_was_compressed_otherwise_is_another_one() -> None:
    old = image_of("web", 1, 2)
    other = [old.layers[0], old.layers[1].model_copy(update={"digest": DIGESTS[0]})]
    assert without(image_of("web", 1, 2), old.model_copy(update={"layers": other})) == [1]


def test_the_image_that_shares_most_is_held_the_one_of_the_same_name_first() -> None:
    (archive,) = plan_pack(facts([image_of("new", 1, 2, 3)], [image_of("web", 1), image_of("counter", 1, 2)])).deltas
    assert archive.required_image is not None
    assert archive.required_image.reference == "shop/counter:1"
    (archive,) = plan_pack(facts([image_of("web", 1, 3)], [image_of("counter", 1, 2), image_of("web", 1, 4)])).deltas
    assert archive.required_image is not None
    assert archive.required_image.reference == "shop/web:1"
    foreign = image_of("web", 1).model_copy(update={"platform": "linux/arm64"})
    assert without(image_of("web", 1), foreign) == []


def test_of_several_platforms_each_leaves_out_what_its_own_begins_with() -> None:
    def both(*numbers: int) -> list[BundledImage]:
        arm = {"platform": "linux/arm64", "file": "images/web-arm64.tar"}
        return [image_of("web", *numbers), image_of("web", *reversed(numbers)).model_copy(update=arm)]

    archives = plan_pack(facts(both(1, 2, 3), both(1, 2))).deltas
    assert [[int(digest[-2:], 16) for digest in each.omitted_layers] for each in archives] == [[1, 2], []]
    assert archives[1].required_image is None


def test_a_whole_pack_leaves_nothing_out_and_says_what_it_needs() -> None:
    planned = plan_pack(facts([image_of("web", 1, 2)], None))
    assert planned.directory.name == f"shop-{MANIFEST.version}"
    assert planned.deltas[0].omitted_layers == ()
    assert planned.required_bytes == 100_500
    since = plan_pack(facts([image_of("web", 1, 2)], [image_of("web", 1)]))
    assert since.directory.name == f"shop-{MANIFEST.version}-since-1.0.0"
    assert since.required_bytes == 99_500


def test_a_version_since_itself_is_refused() -> None:
    own = replace(facts([image_of("web", 1)], []), baseline=MANIFEST)
    with pytest.raises(UsageError, match="itself"):
        plan_pack(own)


def packed(made: Path, to: Path, *, split: int | None, since: Manifest | None) -> Path:
    manifest = read_manifest(made)
    planned = plan_pack(PackFacts(made, manifest, since, to, split, documents_size=0, free_bytes=0))
    planned.directory.mkdir(parents=True)
    fill_pack(planned, planned.directory)
    write_checksums(planned.directory)
    return planned.directory


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    """A pack since a version that has one of the two images, in parts."""
    manifest = read_manifest(made)
    older = manifest.model_copy(update={"version": "0.9.0", "images": manifest.images[:1]})
    return packed(made, tmp_path, split=8192, since=older)


def test_a_pack_is_verified_and_every_byte_of_it_counts(pack: Path) -> None:
    report = verify_path(pack)
    assert (report.kind, report.version, report.since) == ("pack", "1.0.0", "0.9.0")
    names = sorted(path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file())
    assert [name for name in names if name.endswith(".tar")] == ["images/web-1.0.0-linux-amd64.tar"]
    assert len([name for name in names if ".tar.0" in name]) > 2
    for name in names:
        whole = (pack / name).read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            changed = bytearray(whole)
            changed[at] ^= 1
            (pack / name).write_bytes(changed)
            told = refusal(pack)
            assert name in told or name == layout.CHECKSUMS_FILE, told
        (pack / name).unlink()
        assert name.split("/")[-1] in refusal(pack)
        (pack / name).write_bytes(whole)
    verify_path(pack)
    (pack / "images/extra.tar.004").write_bytes(b"")
    assert "images/extra.tar.004: extra" in refusal(pack)


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        verify_path(path)
    assert error.value.exit_code == 6
    return "\n".join((error.value.message, *error.value.details))


def rewritten(pack: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """Refused although the sums agree: `pack.json` was written by somebody who may."""
    document = json.loads((pack / layout.PACK_FILE).read_text())
    change(document)
    (pack / layout.PACK_FILE).write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    write_checksums(pack)
    return refusal(pack)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pack: pack.update(version="2.0.0"), "about another bundle"),
        (lambda pack: pack.update(set_digest=DIGESTS[0]), "about another bundle"),
        (lambda pack: pack.update(since=None), "layers are left out that no older version has"),
        (lambda pack: pack.update(more=1), "more"),
        (lambda pack: pack["images"].pop(), "other images than the description"),
        (lambda pack: pack["images"].append(pack["images"][0]), "other images than the description"),
        (lambda pack: pack["images"][0].update(held=None), "layers are left out of another image, or there is none"),
        (lambda pack: pack["images"][0].update(without=[DIGESTS[0]]), "layers are left out that no older version has"),
        (lambda pack: pack["images"][0].update(file="../out.tar"), "images.0.file"),
        (lambda pack: pack["images"][0].update(file="/out.tar"), "images.0.file"),
        (lambda pack: pack["images"][0].update(size=10**30), "another digest or size"),
        (lambda pack: pack["images"][1].update(parts=1), "images/counter-1.0.0-linux-amd64.tar"),
        (lambda pack: pack["images"][1].update(parts=10**6), "images.1.parts"),
        (lambda pack: pack["images"][1].update(parts=900), ".tar.0"),
        (lambda pack: pack["documents"].update(file="../documents.tar.gz"), "documents.file"),
        (lambda pack: pack["documents"].update(unpacked_size=1000), "unpacks to more than the 1000 bytes"),
        (lambda pack: pack["documents"].update(size=1), "documents.tar.gz: the pack gives it another digest or size"),
        (lambda pack: pack["documents"].update(sha256="0" * 64), "the pack gives it another digest or size"),
    ],
)  # fmt: skip
def test_a_pack_that_lies_about_itself_is_refused_though_the_sums_agree(
    pack: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    assert said in rewritten(pack, change)


def test_a_key_that_is_there_twice_is_refused(pack: Path) -> None:
    text = (pack / layout.PACK_FILE).read_text()
    (pack / layout.PACK_FILE).write_text(text.replace("{\n", '{\n  "version": "3.0.0",\n', 1))
    write_checksums(pack)
    assert "duplicate key 'version'" in refusal(pack)


def test_a_key_that_is_there_twice_among_very_many_is_refused_at_once(pack: Path) -> None:
    keys = "".join(f'"{number}":0,' for number in range(300_000))
    (pack / layout.PACK_FILE).write_text("{" + keys + '"0":0}')
    write_checksums(pack)
    began = time.monotonic()
    assert "duplicate key '0'" in refusal(pack)
    assert time.monotonic() - began < 10


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (member("../outside"), "../outside: is not what the bundle had"),
        (member("/absolute"), "/absolute: is not what the bundle had"),
        (member("evidence/extra"), "evidence/extra: is not what the bundle had"),
        (member("evidence/link", tarfile.SYMTYPE, "/etc/passwd"), "'evidence/link' is not a regular file"),
        (member("evidence/hard", tarfile.LNKTYPE, "../x"), "'evidence/hard' is not a regular file"),
        (member("evidence/device", tarfile.BLKTYPE), "'evidence/device' is not a regular file"),
        (member("evidence/pipe", tarfile.FIFOTYPE), "'evidence/pipe' is not a regular file"),
        (member("evidence/folder", tarfile.DIRTYPE), "'evidence/folder' is not a regular file"),
        (member("SHA256SUMS"), "SHA256SUMS is there twice"),
    ],
)
def test_what_does_not_belong_into_the_documents_is_named(
    made: Path, tmp_path: Path, more: tarfile.TarInfo, said: str
) -> None:
    pack = packed(made, tmp_path / "packs", split=None, since=None)
    old = gzip.decompress((pack / layout.DOCUMENTS_FILE).read_bytes())
    buffer = io.BytesIO(old.rstrip(b"\0") + bytes(-len(old.rstrip(b"\0")) % 512))
    buffer.seek(0, 2)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(more)
    data = gzip.compress(buffer.getvalue())
    (pack / layout.DOCUMENTS_FILE).write_bytes(data)
    before = {path for path in tmp_path.rglob("*") if pack not in path.parents}
    facts = {"unpacked_size": 10**7, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert said in rewritten(pack, lambda document: document["documents"].update(facts))
    assert {path for path in tmp_path.rglob("*") if pack not in path.parents} == before, "something was written"


def test_files_that_are_too_large_or_too_many_to_be_believed_are_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(made, tmp_path / "1.0.0")
    with (bundle / layout.CHECKSUMS_FILE).open("ab") as file:
        file.truncate(10 * 1024**3)  # a hole, which takes no room
    assert "SHA256SUMS: is larger than 16 MiB" in refusal(bundle)
    shutil.copy(made / layout.CHECKSUMS_FILE, bundle)
    with (bundle / layout.MANIFEST_FILE).open("ab") as file:
        file.truncate(20 * 1024**2)
    write_checksums(bundle)
    assert "manifest.json: is larger than 16 MiB" in refusal(bundle)
    monkeypatch.setattr("lyra_tasks.bundle.format.checksums._MAX_FILES", 5)
    assert "holds more than 5 files" in refusal(bundle)
    monkeypatch.undo()
    (bundle / "/".join(["a"] * 101)).mkdir(parents=True)
    assert "has folders more than 100 deep" in refusal(bundle)


def test_an_archive_alone_is_whole_or_refused(made: Path, pack: Path, tmp_path: Path) -> None:
    archive = shutil.copy(next((made / layout.IMAGES_DIRECTORY).iterdir()), tmp_path / "alone.tar")
    report = verify_path(Path(archive))
    assert (report.kind, report.images[0][0].startswith("docker.io/shop/")) == ("archive", True)
    data = bytearray(Path(archive).read_bytes())
    data[9000] ^= 1
    Path(archive).write_bytes(data)
    assert "alone.tar: blobs/sha256/" in refusal(Path(archive))
    thin = shutil.copy(pack / "images/web-1.0.0-linux-amd64.tar", tmp_path / "thin.tar")
    assert "is missing" in refusal(Path(thin))


def test_what_cannot_be_packed_is_said_before_anything_is_made(made: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "shop"
    shutil.copytree(made, bundles / "1.0.0")
    (bundles / "1.0.0/deploy/configs").mkdir()
    (bundles / "1.0.0/deploy/configs/geo.db").write_bytes(bytes(70_000))
    manifest = read_manifest(made)
    entry = {key: getattr(manifest, key) for key in ("version", "created", "set_digest", "is_snapshot")}
    index = BundleIndex(project="shop", versions=[BundleEntry(commit=manifest.source.commit, **entry)])
    write_document(bundles / layout.INDEX_FILE, index)
    collect_pack_facts(bundles, "1.0.0", to=str(tmp_path), since="", split="")
    for to, version, split, said in (
        ("", "1.0.0", "", "--to names the folder"),
        (str(tmp_path / "missing"), "1.0.0", "", "no such folder"),
        (str(bundles / "1.0.0"), "1.0.0", "", "is among the bundles"),
        (str(tmp_path), "9.0.0", "", "there is no bundle of version '9.0.0'"),
        (str(tmp_path), "1.0.0", "63k", "a part has at least 64k"),
        (str(tmp_path), "1.0.0", "64k", "deploy/configs/geo.db is larger, and travels as it is"),
    ):
        with pytest.raises(UsageError, match=said):
            collect_pack_facts(bundles, version, to=to, since="", split=split)


def test_a_pack_of_a_bundle_and_its_check_do_not_depend_on_where_it_is_split(made: Path, tmp_path: Path) -> None:
    for number, split in enumerate((None, 70_000, 5000)):
        pack = packed(made, tmp_path / str(number), split=split, since=None)
        assert verify_pack(pack).version == "1.0.0"
        for image in read_manifest(made).images:
            parts = sorted((pack / layout.IMAGES_DIRECTORY).glob(f"{Path(image.file).name}*"))
            assert b"".join(part.read_bytes() for part in parts) == (made / image.file).read_bytes()


def test_of_a_part_alone_nothing_is_told_that_was_not_checked(pack: Path) -> None:
    part = next((pack / layout.IMAGES_DIRECTORY).glob("*.tar.001"))
    assert verify_path(part).kind == "part"
    text = (pack / layout.PACK_FILE).read_text()
    (pack / layout.PACK_FILE).write_text(text.replace('"version": "1.0.0"', '"version": "9.0.0"'))
    assert "pack.json: changed" in refusal(part)
    (pack / layout.PACK_FILE).write_text(text)
    part.unlink()
    os.mkfifo(part)
    assert "tar.001: changed" in refusal(part)


def test_a_pack_in_more_parts_than_a_process_may_open_is_verified(made: Path, tmp_path: Path) -> None:
    largest = max(path.stat().st_size for path in (made / layout.IMAGES_DIRECTORY).iterdir())
    pack = packed(made, tmp_path, split=largest // 900, since=None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert verify_path(pack).version == "1.0.0"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_configs_of_a_pack_can_be_read_by_the_users_of_containers(made: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        pack = packed(made, tmp_path, split=None, since=None)
    finally:
        os.umask(before)
    assert (pack / layout.ENV_EXAMPLE_FILE).stat().st_mode & 0o777 == 0o644
