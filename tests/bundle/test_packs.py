"""Packs without an engine: planned layers, contents and verification."""

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

from lyra_tasks.bundle.content.page import describe_archive
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import list_bundle_files, write_checksums
from lyra_tasks.bundle.format.index import BundleEntry, BundleIndex, BundleStore
from lyra_tasks.bundle.format.manifest import (
    Bundle,
    BundledImage,
    ImageLayer,
    Manifest,
    open_bundle,
    write_document,
)
from lyra_tasks.bundle.format.pack import is_operator_file, write_document_archive
from lyra_tasks.bundle.pack.plan import PackFacts, PlannedDelta, collect_pack_facts, plan_pack
from lyra_tasks.bundle.pack.run import fill_pack
from lyra_tasks.bundle.verify import verify_pack, verify_path
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.images.archive.parts import PartsWriter
from tests.bundle.evidence import record_documents
from tests.bundle.test_receive_script import DIGESTS, MANIFEST, with_images
from tests.bundle.test_verify import made as made  # a fixture

LAYERS = tuple(
    ImageLayer(media_type="x", digest=f"sha256:{n:064x}", size=1000 * n, unpacked_size=3000 * n) for n in (1, 2, 3, 4)
)


def image_of(name: str, *numbers: int) -> BundledImage:
    """Return an image with these layers; the diff ID of layer 1 is `sha256:…101`."""
    (image,) = MANIFEST.images
    return image.model_copy(
        update={
            "name": name,
            "references": [f"shop/{name}:1"],
            "layers": [LAYERS[number - 1] for number in numbers],
            "diff_ids": [f"sha256:{100 + number:064x}" for number in numbers],
        }
    )


def sized(*images: BundledImage) -> Manifest:
    """Return the manifest with these images; each archive has 100,000 bytes."""
    manifest = with_images(*images)
    archives = [archive.model_copy(update={"size": 100_000}) for archive in manifest.archives]
    return manifest.model_copy(update={"archives": archives})


def facts(new: list[BundledImage], old: list[BundledImage] | None) -> PackFacts:
    baseline = sized(*(old or [])).model_copy(update={"version": "1.0.0"})
    return PackFacts(
        bundle=Bundle(Path("/bundle"), sized(*new)),
        baseline=baseline if old is not None else None,
        target_directory=Path("/to"),
        max_part_bytes=None,
        documents_size=500,
        free_bytes=10**9,
    )


def without(new: BundledImage, *old: BundledImage) -> list[int]:
    (delta,) = plan_pack(facts([new], list(old))).deltas
    return omitted(delta)


def omitted(delta: PlannedDelta) -> list[int]:
    assert bool(delta.required_images) == bool(delta.omitted_layers)
    assert delta.size == 100_000 - sum(1000 * int(digest[-2:], 16) for digest in delta.omitted_layers)
    return [int(digest[-2:], 16) for digest in delta.omitted_layers]


def required(delta: PlannedDelta) -> list[str]:
    return [image.reference for image in delta.required_images]


def test_pack_omits_only_the_lowest_layers() -> None:
    assert without(image_of("web", 1, 2, 3), image_of("web", 1, 2, 4)) == [1, 2]
    assert without(image_of("web", 1, 2, 3), image_of("web", 1, 4, 3)) == [1]
    assert without(image_of("web", 1, 2, 3), image_of("web", 2, 3)) == []
    assert without(image_of("web", 1, 2), image_of("web", 1, 2, 3)) == [1, 2]
    assert without(image_of("web", 1, 2, 1), image_of("web", 1, 2)) == [2], "a blob that occurs again above is packed"


def test_pack_keeps_layers_compressed_differently() -> None:
    old = image_of("web", 1, 2)
    other = [old.layers[0], old.layers[1].model_copy(update={"digest": DIGESTS[0]})]
    assert without(image_of("web", 1, 2), old.model_copy(update={"layers": other})) == [1]


def test_required_image_shares_most_layers() -> None:
    (delta,) = plan_pack(facts([image_of("new", 1, 2, 3)], [image_of("web", 1), image_of("counter", 1, 2)])).deltas
    assert required(delta) == ["shop/counter:1"]
    (delta,) = plan_pack(facts([image_of("web", 1, 3)], [image_of("counter", 1, 2), image_of("web", 1, 4)])).deltas
    assert required(delta) == ["shop/web:1"], "an image of the same name comes first"
    foreign = image_of("web", 1).model_copy(update={"platform": "linux/arm64"})
    assert without(image_of("web", 1), foreign) == []


def test_pack_omits_layers_per_platform() -> None:
    def both(*numbers: int) -> list[BundledImage]:
        arm = {"platform": "linux/arm64"}
        return [image_of("web", *numbers), image_of("web", *reversed(numbers)).model_copy(update=arm)]

    deltas = plan_pack(facts(both(1, 2, 3), both(1, 2))).deltas
    assert [omitted(delta) for delta in deltas] == [[1, 2], []]


def test_pack_keeps_layer_that_any_image_has_above() -> None:
    old = [image_of("web", 1, 2), image_of("counter", 1, 3)]
    (delta,) = plan_pack(facts([image_of("web", 1, 2, 4), image_of("counter", 1, 3)], old)).deltas
    assert (omitted(delta), required(delta)) == ([1, 2, 3], ["shop/web:1", "shop/counter:1"])
    (delta,) = plan_pack(facts([image_of("web", 1, 2, 4), image_of("counter", 1, 4, 2)], old)).deltas
    assert (omitted(delta), required(delta)) == ([1], ["shop/web:1", "shop/counter:1"])
    (delta,) = plan_pack(facts([image_of("web", 1, 2), image_of("new", 4)], old)).deltas
    assert (omitted(delta), required(delta)) == ([1, 2], ["shop/web:1"])


def test_pack_without_baseline_omits_nothing() -> None:
    plan = plan_pack(facts([image_of("web", 1, 2)], None))
    assert plan.directory.name == f"shop-{MANIFEST.version}"
    assert plan.deltas[0].omitted_layers == ()
    assert plan.required_bytes == 100_500
    since = plan_pack(facts([image_of("web", 1, 2)], [image_of("web", 1)]))
    assert since.directory.name == f"shop-{MANIFEST.version}-since-1.0.0"
    assert since.required_bytes == 99_500


def test_pack_refuses_its_own_version_as_baseline() -> None:
    own = replace(facts([image_of("web", 1)], []), baseline=MANIFEST)
    with pytest.raises(UsageError, match="same version"):
        plan_pack(own)


def create(made: Path, to: Path, *, split: int | None, since: Manifest | None) -> Path:
    plan = plan_pack(PackFacts(open_bundle(made), since, to, split, documents_size=0, free_bytes=0))
    plan.directory.mkdir(parents=True)
    fill_pack(plan, plan.directory)
    write_checksums(plan.directory)
    return plan.directory


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    """Create a pack in parts, since a version with one of the two images."""
    manifest = open_bundle(made).manifest
    baseline = manifest.model_copy(update={"version": "0.9.0", "images": manifest.images[:1]})
    assert manifest.images[0].name == "web"
    return create(made, tmp_path, split=8192, since=baseline)


def test_pack_verification_checks_every_byte(pack: Path) -> None:
    report = verify_path(pack)
    assert (report.kind, report.version, report.since) == ("pack", "1.0.0", "0.9.0")
    names = sorted(path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file())
    assert [name for name in names if name.endswith(".tar")] == []
    assert len([name for name in names if ".tar.0" in name]) > 2
    for name in names:
        whole = (pack / name).read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            changed = bytearray(whole)
            changed[at] ^= 1
            (pack / name).write_bytes(changed)
            text = refusal(pack)
            assert name in text or name == layout.CHECKSUMS_FILE, text
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


def rewrite(pack: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """Change `pack.json` with its checksum, and return the error."""
    document = json.loads((pack / layout.PACK_FILE).read_text())
    change(document)
    (pack / layout.PACK_FILE).write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    write_checksums(pack)
    return refusal(pack)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda pack: pack.update(version="2.0.0"), "pack.json: describes another bundle"),
        (lambda pack: pack.update(set_digest=DIGESTS[0]), "pack.json: describes another bundle"),
        (lambda pack: pack.update(since=None), "omits layers that are not in an older version"),
        (lambda pack: pack.update(more=1), "more"),
        (lambda pack: pack["archives"].pop(), "pack.json: archives differ from manifest.json"),
        (lambda pack: pack["archives"].append(pack["archives"][0]), "pack.json: archives differ from manifest.json"),
        (lambda pack: pack["archives"][0].update(platform="linux/arm64"), "pack.json: archives differ from"),
        (lambda pack: pack["archives"][0].update(required_images=[]), "required images must be given together"),
        (lambda pack: pack["archives"][0].update(omitted_layers=[DIGESTS[0]]), "layers that are not in"),
        (lambda pack: pack["archives"][0].update(file="../out.tar"), "archives.0.file"),
        (lambda pack: pack["archives"][0].update(file="/out.tar"), "archives.0.file"),
        (lambda pack: pack["archives"][0].update(size=10**30), "not valid JSON: a number is out of range"),
        (lambda pack: pack["archives"][0].update(size=10**18), "digest or size differs from pack.json"),
        (lambda pack: pack["archives"][0].update(parts=1), "images/shop-1.0.0-linux-amd64.tar"),
        (lambda pack: pack["archives"][0].update(parts=10**6), "archives.0.parts"),
        (lambda pack: pack["archives"][0].update(parts=900), ".tar.0"),
        (lambda pack: pack["documents"].update(file="../documents.tar.gz"), "documents.file"),
        (lambda pack: pack["documents"].update(unpacked_size=1000), "unpacks to more than the 1000 bytes"),
        (lambda pack: pack["documents"].update(size=1), "documents.tar.gz: digest or size differs from pack.json"),
        (lambda pack: pack["documents"].update(sha256="0" * 64), "digest or size differs from pack.json"),
    ],
)  # fmt: skip
def test_verify_refuses_contradictory_pack(
    pack: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    assert problem in rewrite(pack, change)


def test_verify_refuses_duplicate_key(pack: Path) -> None:
    text = (pack / layout.PACK_FILE).read_text()
    (pack / layout.PACK_FILE).write_text(text.replace("{\n", '{\n  "version": "3.0.0",\n', 1))
    write_checksums(pack)
    assert "duplicate key 'version'" in refusal(pack)


def test_duplicate_among_many_keys_is_refused_quickly(pack: Path) -> None:
    keys = "".join(f'"{number}":0,' for number in range(300_000))
    (pack / layout.PACK_FILE).write_text("{" + keys + '"0":0}')
    write_checksums(pack)
    started = time.monotonic()
    assert "duplicate key '0'" in refusal(pack)
    assert time.monotonic() - started < 10


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (member("../outside"), "../outside: differs from the bundle"),
        (member("/absolute"), "/absolute: differs from the bundle"),
        (member("evidence/extra"), "evidence/extra: differs from the bundle"),
        (member("evidence/link", tarfile.SYMTYPE, "/etc/passwd"), "'evidence/link' is not a regular file"),
        (member("evidence/hard", tarfile.LNKTYPE, "../x"), "'evidence/hard' is not a regular file"),
        (member("evidence/device", tarfile.BLKTYPE), "'evidence/device' is not a regular file"),
        (member("evidence/pipe", tarfile.FIFOTYPE), "'evidence/pipe' is not a regular file"),
        (member("evidence/directory", tarfile.DIRTYPE), "'evidence/directory' is not a regular file"),
        (member("SHA256SUMS"), "duplicate file SHA256SUMS"),
    ],
)
def test_verify_names_foreign_member_of_documents(
    made: Path, tmp_path: Path, extra: tarfile.TarInfo, problem: str
) -> None:
    pack = create(made, tmp_path / "packs", split=None, since=None)
    old = gzip.decompress((pack / layout.DOCUMENTS_FILE).read_bytes())
    buffer = io.BytesIO(old.rstrip(b"\0") + bytes(-len(old.rstrip(b"\0")) % 512))
    buffer.seek(0, 2)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(extra)
    data = gzip.compress(buffer.getvalue())
    (pack / layout.DOCUMENTS_FILE).write_bytes(data)
    before = {path for path in tmp_path.rglob("*") if pack not in path.parents}
    facts = {"unpacked_size": 10**7, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert problem in rewrite(pack, lambda document: document["documents"].update(facts))
    assert {path for path in tmp_path.rglob("*") if pack not in path.parents} == before, "something was written"


def test_verify_refuses_implausible_sizes_and_counts(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(made, tmp_path / "1.0.0")
    with (bundle / layout.CHECKSUMS_FILE).open("ab") as file:
        file.truncate(10 * 1024**3)  # a sparse file
    assert "SHA256SUMS: larger than 16 MiB" in refusal(bundle)
    shutil.copy(made / layout.CHECKSUMS_FILE, bundle)
    with (bundle / layout.MANIFEST_FILE).open("ab") as file:
        file.truncate(20 * 1024**2)
    write_checksums(bundle)
    assert "manifest.json: larger than 16 MiB" in refusal(bundle)
    monkeypatch.setattr("lyra_tasks.bundle.format.checksums._MAX_FILES", 5)
    assert "contains more than 5 files" in refusal(bundle)
    monkeypatch.undo()
    (bundle / "/".join(["a"] * 101)).mkdir(parents=True)
    assert "directories are nested more than 100 deep" in refusal(bundle)


def test_verify_checks_a_single_archive(made: Path, pack: Path, tmp_path: Path) -> None:
    archive = shutil.copy(next((made / layout.IMAGES_DIRECTORY).iterdir()), tmp_path / "alone.tar")
    report = verify_path(Path(archive))
    assert (report.kind, next(iter(report.images)).startswith("docker.io/shop/")) == ("archive", True)
    data = bytearray(Path(archive).read_bytes())
    data[9000] ^= 1
    Path(archive).write_bytes(data)
    assert "alone.tar: blobs/sha256/" in refusal(Path(archive))
    delta = tmp_path / "delta.tar"
    delta.write_bytes(b"".join(part.read_bytes() for part in sorted((pack / layout.IMAGES_DIRECTORY).iterdir())))
    assert "is missing" in refusal(delta)


def test_pack_refuses_invalid_options_before_writing(made: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "shop"
    shutil.copytree(made, bundles / "1.0.0")
    (bundles / "1.0.0/deploy/configs/geo.db").write_bytes(bytes(70_000))
    manifest = open_bundle(made).manifest
    entry = {key: getattr(manifest, key) for key in ("version", "created", "set_digest", "is_snapshot")}
    index = BundleIndex(project="shop", versions=[BundleEntry(commit=manifest.source.commit, **entry)])
    write_document(bundles / layout.INDEX_FILE, index)
    store = BundleStore(bundles)
    collect_pack_facts(store, "1.0.0", to=str(tmp_path), since="", split="")
    for to, version, split, message in (
        ("", "1.0.0", "", "--to DIRECTORY is required"),
        (str(tmp_path / "missing"), "1.0.0", "", "directory not found"),
        (str(bundles / "1.0.0"), "1.0.0", "", "is in the promotion directory"),
        (str(tmp_path), "9.0.0", "", "No bundle with version '9.0.0'"),
        (str(tmp_path), "1.0.0", "63k", "less than 64k"),
        (str(tmp_path), "1.0.0", "64k", "deploy/configs/geo.db is larger and cannot be split"),
    ):
        with pytest.raises(UsageError, match=message):
            collect_pack_facts(store, version, to=to, since="", split=split)


def test_pack_is_independent_of_the_part_size(made: Path, tmp_path: Path) -> None:
    for number, split in enumerate((None, 70_000, 5000)):
        pack = create(made, tmp_path / str(number), split=split, since=None)
        assert verify_pack(pack).version == "1.0.0"
        for file in open_bundle(made).manifest.archives_by_file:
            parts = sorted((pack / layout.IMAGES_DIRECTORY).glob(f"{Path(file).name}*"))
            assert b"".join(part.read_bytes() for part in parts) == (made / file).read_bytes()


def test_verify_of_a_part_also_checks_pack_json(pack: Path) -> None:
    part = next((pack / layout.IMAGES_DIRECTORY).glob("*.tar.001"))
    assert verify_path(part).kind == "part"
    text = (pack / layout.PACK_FILE).read_text()
    (pack / layout.PACK_FILE).write_text(text.replace('"version": "1.0.0"', '"version": "9.0.0"'))
    assert "pack.json: changed" in refusal(part)
    (pack / layout.PACK_FILE).write_text(text)
    part.unlink()
    os.mkfifo(part)
    assert "tar.001: changed" in refusal(part)


def test_pack_with_more_parts_than_open_files_is_verified(made: Path, tmp_path: Path) -> None:
    largest = max(path.stat().st_size for path in (made / layout.IMAGES_DIRECTORY).iterdir())
    pack = create(made, tmp_path, split=largest // 900, since=None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert verify_path(pack).version == "1.0.0"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_pack_configs_are_world_readable(made: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        pack = create(made, tmp_path, split=None, since=None)
    finally:
        os.umask(before)
    assert (pack / layout.ENV_EXAMPLE_FILE).stat().st_mode & 0o777 == 0o644


def test_page_of_a_pack_is_true_for_the_pack(made: Path, tmp_path: Path) -> None:
    manifest = open_bundle(made).manifest
    (archive,) = manifest.archives
    page = f"# shop 1.0.0\n\nA shop\n\n## 1. Trust\n\nSee `{layout.CHANGES_FILE}`.\n{describe_archive(archive)}## End\n"
    bundle = shutil.copytree(made, tmp_path / "bundle")
    (bundle / layout.SUMMARY_FILE).write_text(page)
    record_documents(bundle)
    write_checksums(bundle)
    baseline = manifest.model_copy(update={"version": "0.9.0", "images": manifest.images[:1]})
    (tmp_path / "delta").mkdir()
    delta = create(bundle, tmp_path / "delta", split=8192, since=baseline)
    text = (delta / layout.SUMMARY_FILE).read_text()
    assert text.startswith("# shop 1.0.0\n\nA shop\n\n## This is a pack\n\nIt lacks layers of version 0.9.0.")
    required = baseline.images[0]
    assert f"- `{required.references[0]}`: `{required.config_digest}`, `{required.manifest_digest}`\n" in text
    assert describe_archive(archive) not in text
    assert " parts) has layers of all images for linux/amd64, except those of 0.9.0.\n" in text
    assert f"`{layout.CHANGES_FILE}` of the documents" in text
    assert "tar -xzf - -C ../shop-1.0.0-documents\n" in text
    whole = create(bundle, tmp_path, split=None, since=None)
    text = (whole / layout.SUMMARY_FILE).read_text()
    assert "It is complete" in text and "lacks" not in text and "parts" not in text
    assert describe_archive(archive) in text
    for pack in (delta, whole):
        verify_path(pack)
    parts = b"".join(path.read_bytes() for path in sorted(delta.glob(f"{layout.DOCUMENTS_FILE}*")))
    with tarfile.open(fileobj=io.BytesIO(parts)) as documents:
        member = documents.extractfile(layout.SUMMARY_FILE)
        assert member and member.read().decode() == page, "the signed page of the bundle is in the documents"


def test_pack_of_an_earlier_version_has_the_page_of_its_bundle(made: Path, tmp_path: Path) -> None:
    pack = create(made, tmp_path, split=None, since=None)
    plan = plan_pack(PackFacts(open_bundle(made), None, tmp_path, None, documents_size=0, free_bytes=0))
    files, _ = list_bundle_files(made)
    elsewhere = {layout.SUMMARY_FILE, layout.RECEIVE_SCRIPT, *plan.facts.bundle.manifest.archives_by_file}
    archived = {name: path for name, path in files.items() if not is_operator_file(name) and name not in elsewhere}
    (pack / layout.DOCUMENTS_FILE).unlink()
    with PartsWriter(pack / layout.DOCUMENTS_FILE, None) as target:
        unpacked_size = write_document_archive(archived, target, 0)
    shutil.copy(made / layout.SUMMARY_FILE, pack / layout.SUMMARY_FILE)
    document = json.loads((pack / layout.PACK_FILE).read_text())
    document["documents"].update(sha256=target.sha256, size=target.size, unpacked_size=unpacked_size)
    (pack / layout.PACK_FILE).write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    write_checksums(pack)
    assert verify_path(pack).kind == "pack"
    (pack / layout.SUMMARY_FILE).write_text("another")
    write_checksums(pack)
    assert f"{layout.SUMMARY_FILE}: differs from the bundle" in refusal(pack)
