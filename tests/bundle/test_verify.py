"""`verify` detects every change of a bundle and names the file."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import list_bundle_files, write_checksums
from lyra_tasks.bundle.format.manifest import (
    BundledArchive,
    BundledImage,
    BundledService,
    ImageLayer,
    Manifest,
    TestSummary,
    write_document,
)
from lyra_tasks.bundle.format.signature import sign_checksums
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import ExpectedImage, verify_archive
from lyra_tasks.images.archive.write import ArchiveEntry, write_archive
from lyra_tasks.images.stream.pack import ImageRequest, pack_saved_images
from tests.bundle.evidence import set_key, write_evidence
from tests.bundle.test_receive_script import MANIFEST
from tests.conftest import Project
from tests.images.saves import SampleImage, layer, legacy, sha256, stream, tar

pytestmark = pytest.mark.slow

BASE = layer({"base": random.Random("base").randbytes(20_000)})
IMAGES = {
    name: SampleImage(f"shop/{name}:1.0.0", (BASE, layer({name: random.Random(name).randbytes(20_000)})))
    for name in ("web", "counter")
}
ARCHIVE = layout.archive_file("shop", "1.0.0", "linux/amd64")
TEXTS = (
    layout.SUMMARY_FILE,
    layout.COMPOSE_FILE,
    layout.ENV_EXAMPLE_FILE,
    layout.CHANGES_FILE,
    layout.RECEIVE_SCRIPT,
)


def write_images(bundle: Path, spool: Path) -> tuple[list[BundledArchive], list[BundledImage]]:
    """Write the archive of all sample images."""
    packed = [
        pack_saved_images(stream(tar(legacy(sample))), {0: ImageRequest(sample.reference)}, spool, "gzip")[0]
        for sample in IMAGES.values()
    ]
    entries = [ArchiveEntry(image, [f"shop/{name}:1.0.0"]) for name, image in zip(IMAGES, packed, strict=True)]
    write_archive(bundle / ARCHIVE, entries, 0)
    contents = verify_archive(
        bundle / ARCHIVE, expected=[ExpectedImage(entry.image.identity, entry.references) for entry in entries]
    )
    archive = BundledArchive(platform="linux/amd64", file=ARCHIVE, sha256=contents.sha256, size=contents.size)
    images = []
    for name, image in zip(IMAGES, packed, strict=True):
        layers = [asdict(layer) for layer in image.identity.layers]
        images.append(
            BundledImage(
                name=name,
                services=[name],
                references=[f"shop/{name}:1.0.0"],
                platform="linux/amd64",
                origin=None,
                config_digest=image.identity.config_digest,
                manifest_digest=image.identity.manifest_digest,
                diff_ids=[layer.pop("diff_id") for layer in layers],
                layers=[ImageLayer(**layer) for layer in layers],
            )
        )
    return [archive], images


def write_manifest(bundle: Path, archives: list[BundledArchive], images: list[BundledImage]) -> Manifest:
    services = [BundledService(name=image.name, image=image.name) for image in images]
    changes = {
        "version": "1.0.0",
        "archives": archives,
        "images": images,
        "services": services,
        "set_digest": f"sha256:{set_key(images).digest}",
        "tests": TestSummary(passed=2, failed=0),
        "deviations": 1,
    }
    manifest = MANIFEST.model_copy(update=changes)
    write_document(bundle / layout.MANIFEST_FILE, manifest)
    return manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a small bundle with two images, which no test changes."""
    parent = tmp_path_factory.mktemp("made")
    bundle, spool = parent / "1.0.0", parent / "spool"
    for directory in (bundle / layout.IMAGES_DIRECTORY, bundle / "deploy", bundle / "evidence", spool):
        directory.mkdir(parents=True)
    for name in TEXTS:
        (bundle / name).write_text(f"this is {name}\n")
    write_evidence(bundle, write_manifest(bundle, *write_images(bundle, spool)))
    write_checksums(bundle)
    return bundle


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """Copy the small bundle, so that the test can damage it."""
    return shutil.copytree(made, tmp_path / "1.0.0")


SUMMED = (*TEXTS, layout.TESTS_JSON_FILE, layout.MANIFEST_FILE, ARCHIVE)
FILES = (*SUMMED, layout.CHECKSUMS_FILE)


def refused(bundle: Path, *names: str) -> None:
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert error.value.exit_code == 6
    text = [error.value.message, *error.value.details]
    for name in names:
        assert any(name in line for line in text), text


def test_intact_bundle_is_verified(bundle: Path) -> None:
    report = verify_bundle(bundle)
    files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    assert report.file_sizes == {name: files[name].stat().st_size for name in files if name != layout.CHECKSUMS_FILE}
    assert set(SUMMED) <= report.file_sizes.keys()
    assert (report.project, report.version) == ("shop", "1.0.0")
    assert {name: image.config_digest for name, image in report.images.items()} == {
        name: sha256(sample.config) for name, sample in IMAGES.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_changed_byte_is_detected(name: str, bundle: Path) -> None:
    content = (bundle / name).read_bytes()
    for offset in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[offset] ^= 1
        (bundle / name).write_bytes(changed)
        refused(bundle, *([] if name == layout.CHECKSUMS_FILE else [name]))
    (bundle / name).write_bytes(content)
    verify_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_detected(name: str, bundle: Path) -> None:
    content = (bundle / name).read_bytes()
    for end in (0, len(content) // 2, len(content) - 1):
        (bundle / name).write_bytes(content[:end])
        refused(bundle, *([] if name == layout.CHECKSUMS_FILE else [name]))


@pytest.mark.parametrize("name", FILES)
def test_missing_or_renamed_file_is_detected(name: str, bundle: Path) -> None:
    (bundle / name).rename(bundle / f"{name}.old")
    refused(bundle, name)
    (bundle / f"{name}.old").unlink()
    refused(bundle, name)


@pytest.mark.parametrize("name", SUMMED)
def test_link_or_pipe_instead_of_file_is_detected(name: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / name).rename(tmp_path / "aside")
    (bundle / name).symlink_to(tmp_path / "aside")
    refused(bundle, name)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    refused(bundle, name)


@pytest.mark.parametrize("name", ["extra", "images/extra.tar", "deploy/configs/x", ".hidden", "evidence/logs/db.log"])
def test_extra_file_is_detected(name: str, bundle: Path) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_bytes(b"")
    refused(bundle, name)


def test_unprintable_name_is_one_line(bundle: Path) -> None:
    for name in (b"deploy/x: changed\nall is well", b"a\x1b[8m", b"caf\xe9"):
        Path(os.fsdecode(os.fsencode(bundle) + b"/" + name)).touch()
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert [line.partition(": extra")[0] for line in error.value.details] == [
        r"'a\x1b[8m'", r"'caf\udce9'", r"'deploy/x: changed\nall is well'"
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["PROMOTION.md", "deploy", "..", "nowhere"])
def test_extra_link_is_detected(target: str, bundle: Path) -> None:
    (bundle / "deploy/link").symlink_to(target)
    refused(bundle, "deploy/link: neither a file nor a directory")


@pytest.mark.parametrize(
    ("first", "second"), [TEXTS[:2], (ARCHIVE, TEXTS[0]), (layout.MANIFEST_FILE, layout.SUMMARY_FILE)]
)
def test_swapped_files_are_both_detected(first: str, second: str, bundle: Path) -> None:
    (bundle / first).rename(bundle / "aside")
    (bundle / second).rename(bundle / first)
    (bundle / "aside").rename(bundle / second)
    refused(bundle, first, second)


def test_all_problems_are_reported_at_once(bundle: Path) -> None:
    (bundle / ARCHIVE).write_bytes(b"")
    (bundle / layout.COMPOSE_FILE).write_text("changed")
    (bundle / layout.SUMMARY_FILE).unlink()
    (bundle / "extra").write_text("x")
    with pytest.raises(BundleError) as error:
        verify_bundle(bundle)
    assert [line.partition(":")[0] for line in error.value.details] == sorted(
        [ARCHIVE, layout.COMPOSE_FILE, layout.SUMMARY_FILE, "extra"]
    )


def test_bundle_removed_during_verify_is_reported(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_and_remove(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
        files = list_bundle_files(path)
        path.rename(path.with_name("aside"))
        return files

    monkeypatch.setattr("lyra_tasks.bundle.verify.list_bundle_files", list_and_remove)
    refused(bundle, "removed while being read")


def test_signature_is_no_extra_file(bundle: Path) -> None:
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    verify_bundle(bundle)


def _rewrite_manifest(bundle: Path, **changes: object) -> None:
    """Change the description of the archive or of the first image."""
    manifest = Manifest.model_validate_json((bundle / layout.MANIFEST_FILE).read_bytes())
    fields = BundledArchive.model_fields.keys() - {"platform"}
    archive = manifest.archives[0].model_copy(update={key: changes[key] for key in changes.keys() & fields})
    image = manifest.images[0].model_copy(update={key: changes[key] for key in changes.keys() - fields})
    write_manifest(bundle, [archive], [image, *manifest.images[1:]])
    write_checksums(bundle)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("config_digest", sha256(b""), "shop/web:1.0.0: config digest"),
        ("manifest_digest", sha256(b""), "shop/web:1.0.0: manifest digest"),
        ("diff_ids", [sha256(b""), sha256(b"x")], "shop/web:1.0.0: diff ids"),
        ("references", ["shop/web:latest"], "shop/web:latest: missing"),
        ("references", ["shop/web:1.0.0", "shop/web:latest"], "has the references docker.io/shop/web:1.0.0"),
        ("sha256", "0" * 64, "digest or size differs from manifest.json"),
        ("size", 1, "digest or size differs from manifest.json"),
        ("file", "images/other.tar", "missing"),
    ],
)
def test_manifest_of_other_image_is_detected(key: str, value: object, problem: str, bundle: Path) -> None:
    _rewrite_manifest(bundle, **{key: value})
    refused(bundle, "images/", problem)


def test_manifest_with_fewer_images_is_detected(bundle: Path) -> None:
    manifest = Manifest.model_validate_json((bundle / layout.MANIFEST_FILE).read_bytes())
    write_manifest(bundle, manifest.archives, manifest.images[:1])
    write_checksums(bundle)
    refused(bundle, f"{manifest.images[1].manifest_digest}: has the references docker.io/shop/counter:1.0.0")


def test_manifest_of_another_version_is_named(bundle: Path) -> None:
    for number, age in ((1, "an earlier"), (3, "a newer")):
        text = (bundle / layout.MANIFEST_FILE).read_text()
        (bundle / layout.MANIFEST_FILE).write_text(re.sub("lyra.promotion/[0-9]", f"lyra.promotion/{number}", text))
        write_checksums(bundle)
        with pytest.raises(BundleError, match=f"manifest.json: written by {age} version of lyra-tasks") as error:
            verify_bundle(bundle)
        assert error.value.exit_code == 6


def test_archive_without_image_is_detected(bundle: Path) -> None:
    shutil.copy(bundle / ARCHIVE, bundle / "images/second.tar")
    write_checksums(bundle)
    refused(bundle, "images/second.tar: not an archive of manifest.json")


def test_layer_with_wrong_digest_is_detected(bundle: Path) -> None:
    archive = bundle / ARCHIVE
    data = bytearray(archive.read_bytes())
    data[9000] ^= 1
    archive.write_bytes(data)
    _rewrite_manifest(bundle, sha256=sha256(bytes(data)).removeprefix("sha256:"))
    refused(bundle, "does not have the digest in its name")


def test_verify_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BundleError, match="not a promotion bundle") as error:
            verify_bundle(path)
        assert "directory of one version" in error.value.hint


def test_verify_accepts_named_signer_only(bundle: Path, lonely: Project, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "signers").write_text(f"ada {key.with_suffix('.pub').read_text()}")
    command = ("verify", str(bundle), "--allowed-signers", str(tmp_path / "signers"), "--signer")
    unsigned = lonely.lyra(*command, "ada")
    assert unsigned.code == 6
    assert "not signed" in unsigned.err
    sign_checksums(bundle, key)
    plain = lonely.lyra("verify", str(bundle))
    assert plain.code == 0, plain.text
    assert "Signature not checked" in plain.err
    signed = lonely.lyra(*command, "ada")
    assert signed.code == 0, signed.text
    assert "signed by ada" in signed.out
    assert lonely.lyra(*command, "eve").code == 6
    assert lonely.lyra(*command[:-1]).code == 2
    (bundle / layout.SUMMARY_FILE).write_text("changed")
    assert lonely.lyra(*command, "ada").code == 6, "the signature covers the checksums, and they cover the files"


@pytest.mark.parametrize("name", [layout.SUMMARY_FILE, layout.CHECKSUMS_FILE, layout.MANIFEST_FILE, ARCHIVE])
def test_unreadable_sectors_of_a_medium_are_reported_with_the_file(bundle: Path, name: str) -> None:
    verify = f"{sys.executable} -m lyra_tasks verify {bundle}; exit $?"
    command = ["unshare", "--mount", "sh", "-c", f"mount --bind /proc/$$/mem {bundle / name} && {verify}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    message, hint = f"{bundle / name}: Input/output error", "Check it and its connection, and run the command again"
    assert (result.returncode, result.stderr) == (3, f"error: A disk or medium fails at {message}\nhint: {hint}\n")
