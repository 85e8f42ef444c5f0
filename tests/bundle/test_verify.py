"""Whatever is changed in a bundle, `verify` refuses it and names the file."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import list_bundle_files, write_checksums
from lyra_tasks.bundle.format.manifest import (
    BundledImage,
    BundledService,
    BundleSource,
    ImageLayer,
    Manifest,
    Requirements,
    TestSummary,
    write_document,
)
from lyra_tasks.bundle.format.signature import sign_checksums
from lyra_tasks.bundle.verify.bundle import verify_bundle
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.archive.write import write_archive
from lyra_tasks.images.stream.pack import ImageRequest, pack_saved_images
from tests.conftest import Project
from tests.images.saves import SampleImage, layer, legacy, sha256, stream, tar

IMAGES = {
    name: SampleImage(f"shop/{name}:1.0.0", (layer({name: random.Random(name).randbytes(20_000)}),))
    for name in ("web", "counter")
}
TEXTS = (
    layout.SUMMARY_FILE,
    layout.COMPOSE_FILE,
    layout.ENV_EXAMPLE_FILE,
    layout.TESTS_JSON_FILE,
    layout.RECEIVE_SCRIPT,
)


def described(bundle: Path, name: str, spool: Path) -> BundledImage:
    sample = IMAGES[name]
    packed = pack_saved_images(stream(tar(legacy(sample))), {0: ImageRequest(sample.reference)}, spool, "gzip")[0]
    file = layout.image_file(name, "1.0.0", "linux/amd64")
    write_archive(bundle / file, packed, [sample.reference], {}, 0)
    contents = verify_archive(bundle / file, expected=packed.identity)
    layers = [asdict(each) for each in packed.identity.layers]
    return BundledImage(
        name=name,
        services=[name],
        references=[sample.reference],
        file=file,
        sha256=contents.sha256,
        size=contents.size,
        platform=contents.platform,
        config_digest=contents.config_digest,
        manifest_digest=contents.manifest_digest,
        diff_ids=[each.pop("diff_id") for each in layers],
        layers=[ImageLayer(**each) for each in layers],
    )


def describe(bundle: Path, images: list[BundledImage]) -> Manifest:
    manifest = Manifest(
        project="shop",
        description="",
        version="1.0.0",
        is_snapshot=False,
        created="2026-11-23T21:15:04Z",
        source=BundleSource(url="", commit="c" * 40, dirty=False),
        proxima=Requirements(platforms=["linux/amd64"], min_engine="20.10"),
        run="20261123t211504-3f9a1c",
        set_digest=sha256(b"set"),
        images=images,
        services=[BundledService(name=each.name, image=each.name, is_third_party=False) for each in images],
        tests=TestSummary(passed=1, failed=0),
        deviations=0,
    )
    write_document(bundle / layout.MANIFEST_FILE, manifest)
    return manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with two images, that no test changes."""
    folder = tmp_path_factory.mktemp("made")
    bundle, spool = folder / "1.0.0", folder / "spool"
    for each in (bundle / layout.IMAGES_DIRECTORY, bundle / "deploy", bundle / "evidence", spool):
        each.mkdir(parents=True)
    for name in TEXTS:
        (bundle / name).write_text(f"this is {name}\n")
    describe(bundle, [described(bundle, name, spool) for name in IMAGES])
    write_checksums(bundle)
    return bundle


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle, to be spoiled."""
    return shutil.copytree(made, tmp_path / "1.0.0")


ARCHIVES = tuple(layout.image_file(name, "1.0.0", "linux/amd64") for name in IMAGES)
SUMMED = (*TEXTS, layout.MANIFEST_FILE, *ARCHIVES)
FILES = (*SUMMED, layout.CHECKSUMS_FILE)


def refused(bundle: Path, *names: str) -> None:
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert error.value.exit_code == 6
    text = [error.value.message, *error.value.details]
    for name in names:
        assert any(name in line for line in text), text


def test_an_untouched_bundle_is_verified_file_by_file(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert {each.name for each in report.files} == set(SUMMED)
    assert not any(each.problem for each in report.files)
    assert (report.project, report.version) == ("shop", "1.0.0")
    assert {name: image.config_digest for name, image in report.images} == {
        name: sha256(sample.config) for name, sample in IMAGES.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found_wherever_it_is(name: str, bundle: Path) -> None:
    whole = (bundle / name).read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        (bundle / name).write_bytes(changed)
        refused(bundle, *([] if name == layout.CHECKSUMS_FILE else [name]))
    (bundle / name).write_bytes(whole)
    verify_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_truncation_is_found(name: str, bundle: Path) -> None:
    whole = (bundle / name).read_bytes()
    for end in (0, len(whole) // 2, len(whole) - 1):
        (bundle / name).write_bytes(whole[:end])
        refused(bundle, *([] if name == layout.CHECKSUMS_FILE else [name]))


@pytest.mark.parametrize("name", FILES)
def test_deletion_and_renaming_are_found(name: str, bundle: Path) -> None:
    (bundle / name).rename(bundle / f"{name}.old")
    refused(bundle, name)
    (bundle / f"{name}.old").unlink()
    refused(bundle, name)


@pytest.mark.parametrize("name", SUMMED)
def test_a_link_or_a_pipe_in_place_of_a_file_is_found(name: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / name).rename(tmp_path / "aside")
    (bundle / name).symlink_to(tmp_path / "aside")
    refused(bundle, name)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    refused(bundle, name)


@pytest.mark.parametrize("name", ["extra", "images/extra.tar", "deploy/configs/x", ".hidden", "evidence/logs/web.log"])
def test_an_extra_file_is_found(name: str, bundle: Path) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_bytes(b"")
    refused(bundle, name)


def test_a_name_that_is_no_line_of_text_is_told_as_one(bundle: Path) -> None:
    for name in (b"deploy/x: changed\nall is well", b"a\x1b[8m", b"caf\xe9"):
        Path(os.fsdecode(os.fsencode(bundle) + b"/" + name)).touch()
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert [line.partition(": extra")[0] for line in error.value.details] == [
        r"'a\x1b[8m'", r"'caf\udce9'", r"'deploy/x: changed\nall is well'"
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["PROMOTION.md", "deploy", "..", "nowhere"])
def test_an_extra_link_is_found_wherever_it_leads(target: str, bundle: Path) -> None:
    (bundle / "deploy/link").symlink_to(target)
    refused(bundle, "deploy/link: neither a file nor a folder")


@pytest.mark.parametrize(("first", "second"), [TEXTS[:2], ARCHIVES, (layout.MANIFEST_FILE, layout.SUMMARY_FILE)])
def test_two_swapped_files_are_both_found(first: str, second: str, bundle: Path) -> None:
    (bundle / first).rename(bundle / "aside")
    (bundle / second).rename(bundle / first)
    (bundle / "aside").rename(bundle / second)
    refused(bundle, first, second)


def test_everything_that_is_wrong_is_named_at_once(bundle: Path) -> None:
    (bundle / ARCHIVES[0]).write_bytes(b"")
    (bundle / layout.COMPOSE_FILE).write_text("changed")
    (bundle / layout.SUMMARY_FILE).unlink()
    (bundle / "extra").write_text("x")
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert [line.partition(":")[0] for line in error.value.details] == sorted(
        [ARCHIVES[0], layout.COMPOSE_FILE, layout.SUMMARY_FILE, "extra"]
    )


def test_a_bundle_that_goes_while_it_is_read_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
        found = list_bundle_files(path)
        path.rename(path.with_name("aside"))
        return found

    monkeypatch.setattr("lyra_tasks.bundle.verify.bundle.inventory", dropped)
    refused(bundle, "went away while it was read")


def test_a_signature_is_not_an_extra_file(bundle: Path) -> None:
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    verify_bundle(bundle)


def _resummed(bundle: Path, **changes: object) -> None:
    manifest = Manifest.model_validate_json((bundle / layout.MANIFEST_FILE).read_bytes())
    first = manifest.images[0].model_copy(update=changes)
    describe(bundle, [first, *manifest.images[1:]])
    write_checksums(bundle)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("config_digest", sha256(b""), "config digest"),
        ("manifest_digest", sha256(b""), "manifest digest"),
        ("diff_ids", [sha256(b"")], "diff ids"),
        ("platform", "linux/arm64", "platform"),
        ("references", ["shop/web:latest"], "carries the names"),
        ("sha256", "0" * 64, "another digest"),
        ("size", 1, "another digest or size"),
        ("file", "images/other.tar", "missing"),
    ],
)
def test_a_description_of_another_image_is_found_though_the_sums_agree(
    key: str, value: object, problem: str, bundle: Path
) -> None:
    _resummed(bundle, **{key: value})
    refused(bundle, "images/", problem)


def test_an_archive_that_no_image_describes_is_found_though_the_sums_agree(bundle: Path) -> None:
    shutil.copy(bundle / ARCHIVES[0], bundle / "images/second.tar")
    write_checksums(bundle)
    refused(bundle, "images/second.tar: no image of the description")


def test_a_layer_that_is_not_what_its_name_says_is_found_though_the_sums_agree(bundle: Path) -> None:
    archive = bundle / ARCHIVES[0]
    data = bytearray(archive.read_bytes())
    data[9000] ^= 1
    archive.write_bytes(data)
    _resummed(bundle, sha256=sha256(bytes(data)).removeprefix("sha256:"))
    refused(bundle, "digest mismatch")


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BundleError, match="not a promotion bundle") as error:
            verify_bundle(path)
        assert "folder of one version" in error.value.hint


def test_a_signed_bundle_is_verified_for_its_signer_alone(bundle: Path, lonely: Project, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "signers").write_text(f"ada {key.with_suffix('.pub').read_text()}")
    asked = ("verify", str(bundle), "--allowed-signers", str(tmp_path / "signers"), "--signer")
    unsigned = lonely.lyra(*asked, "ada")
    assert unsigned.code == 6
    assert "not signed" in unsigned.err
    sign_checksums(bundle, key)
    plain = lonely.lyra("verify", str(bundle))
    assert plain.code == 0, plain.text
    assert "its signature was not checked" in plain.err
    signed = lonely.lyra(*asked, "ada")
    assert signed.code == 0, signed.text
    assert "every byte checked, signed by ada" in signed.out
    assert lonely.lyra(*asked, "eve").code == 6
    assert lonely.lyra(*asked[:-1]).code == 2
    (bundle / layout.SUMMARY_FILE).write_text("changed")
    assert lonely.lyra(*asked, "ada").code == 6, "the signature is about the checksums, and they about the files"
