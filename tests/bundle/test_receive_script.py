"""`receive.sh` in dash and busybox without an engine: files, versions, options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from semver import Version

from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.manifest import (
    BundledArchive,
    BundledImage,
    BundleSource,
    ImageLayer,
    Manifest,
    Requirements,
    TestSummary,
)

pytestmark = pytest.mark.slow

DIGESTS = tuple(f"sha256:{letter * 64}" for letter in "abcd")
MANIFEST = Manifest(
    project="shop",
    description="It's a shop",
    version="1.2.0-rc.1+g1a2b3c4",
    is_snapshot=False,
    created="2026-11-23T21:15:04Z",
    source=BundleSource(url="", commit="c" * 40, dirty=False),
    proxima=Requirements(platforms=["linux/amd64"], min_engine="20.10"),
    run="20261123t211504-3f9a1c",
    set_digest=DIGESTS[3],
    archives=[
        BundledArchive(
            platform="linux/amd64",
            file="images/shop-1.2.0-rc.1+g1a2b3c4-linux-amd64.tar",
            sha256="0" * 64,
            size=1000,
        )
    ],
    images=[
        BundledImage(
            name="web",
            services=["web"],
            references=["shop/web:1.2.0-rc.1_g1a2b3c4", "shop/web:latest"],
            platform="linux/amd64",
            origin=None,
            config_digest=DIGESTS[0],
            manifest_digest=DIGESTS[1],
            diff_ids=[DIGESTS[2]],
            layers=[ImageLayer(media_type="x", digest=DIGESTS[2], size=900, unpacked_size=3000)],
        )
    ],
    services=[],
    test_doubles=[],
    tests=TestSummary(passed=1, failed=0),
    deviations=0,
)
SCRIPT = render_receive_script(MANIFEST)


def with_images(*images: BundledImage, manifest: Manifest = MANIFEST) -> Manifest:
    """Return the manifest with these images, and an archive for each of their platforms."""
    archives = [
        BundledArchive(platform=platform, file=layout.archive_file("shop", "1", platform), sha256="0" * 64, size=1000)
        for platform in sorted({image.platform for image in images})
    ]
    return manifest.model_copy(update={"images": list(images), "archives": archives})


FUNCTIONS = SCRIPT.removesuffix('main "$@"\n')

ORDERED = (
    "0.9.10", "1.0.0-0", "1.0.0-2", "1.0.0-10", "1.0.0-99999999999999999999", "1.0.0--", "1.0.0-1-", "1.0.0-1a",
    "1.0.0-A", "1.0.0-Z.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-alpha-1", "1.0.0-alpha0",
    "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0-rc.1.dev.3+gabc", "1.0.0-rc.2",
    "1.0.0", "1.0.1-dev.9+g1a2b3c4", "1.0.1-dev.10+g0000000", "1.0.1", "1.2.0", "1.10.0", "9.0.0", "10.0.0",
    "10.0.99999999999999999999",
)  # fmt: skip


def call(shell: list[str], line: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a line of shell with the functions of the script."""
    return subprocess.run(
        [*shell, "-c", f"{FUNCTIONS}\n{line}"], cwd=directory, capture_output=True, text=True, check=False
    )


def test_shellcheck_accepts_template_and_script(tmp_path: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    (tmp_path / "receive.sh").write_text(SCRIPT)
    template = Path(str(resources.files("lyra_tasks.bundle").joinpath("receive.sh")))
    for script in (template, tmp_path / "receive.sh"):
        result = subprocess.run([checker, "--shell=sh", script], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, "")


def test_script_contains_values_of_the_bundle() -> None:
    assert "\nversion=1.2.0-rc.1+g1a2b3c4\n" in SCRIPT
    assert "\nlinux/amd64 images/shop-1.2.0-rc.1+g1a2b3c4-linux-amd64.tar 1000\n" in SCRIPT
    fields = f"linux/amd64 3000 {DIGESTS[0]} {DIGESTS[1]}"
    assert f"\n{fields} shop/web:1.2.0-rc.1_g1a2b3c4 shop/web:latest\n" in SCRIPT
    assert "images/example" not in SCRIPT and "example/web" not in SCRIPT


def test_shared_layer_needs_space_once() -> None:
    (image,) = MANIFEST.images
    own = ImageLayer(media_type="x", digest=DIGESTS[3], size=90, unpacked_size=300)
    twice = {"layers": [*image.layers, own, own], "diff_ids": [DIGESTS[2]] * 3}
    door = image.model_copy(update={"name": "door", "references": ["shop/door:1"], **twice})
    arm = image.model_copy(update={"platform": "linux/arm64"})
    script = render_receive_script(with_images(image, door, arm))
    lines = [line.split() for line in script.splitlines() if " sha256:" in line]
    assert [(platform, int(needed), reference) for platform, needed, _, _, reference, *_ in lines] == [
        ("linux/amd64", 3000, image.references[0]), ("linux/amd64", 300, "shop/door:1"),
        ("linux/arm64", 3000, image.references[0]),
    ]  # fmt: skip


@pytest.mark.parametrize("system", ["linux/amd64", "linux/arm64"])
def test_script_selects_images_of_the_nodes_platform(shell: list[str], system: str) -> None:
    (image,) = MANIFEST.images
    both = [image, image.model_copy(update={"platform": "linux/arm64/v8"})]
    manifest = with_images(*both)
    script = render_receive_script(manifest)
    assert "platforms='linux/amd64 linux/arm64/v8'\n" in script
    functions = script.removesuffix('main "$@"\n')
    line = f'system={system}; each_line echo "$archives"; each_line echo "$images"'
    result = subprocess.run([*shell, "-c", f"{functions}\n{line}"], capture_output=True, text=True, check=True)
    (archive,) = [archive.file for archive in manifest.archives if archive.platform.startswith(system)]
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [[archive, "1000"], ["3000", DIGESTS[0]]]
    incomplete = with_images(*both, image.model_copy(update={"name": "door"}))
    assert "platforms=linux/amd64\n" in render_receive_script(incomplete), "only platforms that all images exist for"


def test_truncated_script_does_nothing(shell: list[str], tmp_path: Path) -> None:
    result = subprocess.run([*shell, "-c", FUNCTIONS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_version_key_sorts_by_semantic_precedence(shell: list[str]) -> None:
    versions = [Version.parse(version) for version in ORDERED]
    assert versions == sorted(versions), "the list itself"
    lines = "\n".join(f"version_key '{version.replace('+', '_')}'" for version in ORDERED)
    keys = call(shell, lines).stdout.splitlines()
    assert len(keys) == len(ORDERED)
    for (lower, low_key), (higher, high_key) in pairwise(zip(ORDERED, keys, strict=True)):
        assert low_key < high_key, f"{lower} must be before {higher}"


def test_version_key_ignores_build_metadata(shell: list[str]) -> None:
    keys = call(shell, "version_key 1.0.0-a.1+x; version_key 1.0.0-a.1+y.9; version_key 1.0.0-a.1_z").stdout.split()
    assert keys == keys[:1] * 3


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        *[("1.2.3", 0), ("1.2.3-rc.1", 0), ("1.2.3_g1a", 0)],
        *[("1.2", 1), ("1", 1), ("latest", 1), ("1.2.3.4", 1), ("1.x.3", 1)],
    ],
)
def test_is_version_accepts_full_versions_only(shell: list[str], tag: str, code: int) -> None:
    assert call(shell, f"is_version {tag}").returncode == code


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Create a directory with checksums in a path with spaces."""
    directory = tmp_path / "a directory's $name" / "1.2.0"
    for name in ("manifest.json", "images/web.tar", "deploy/.env.example", "deploy/configs/a b", "evidence/logs/w.log"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"this is {name}\n")
    (directory / layout.RECEIVE_SCRIPT).write_text(SCRIPT)
    write_checksums(directory)
    return directory


def refused(shell: list[str], bundle: Path, *problems: str) -> None:
    result = call(shell, "verify_files", bundle)
    assert result.returncode == 6, result.stdout + result.stderr
    assert result.stderr.startswith("receive.sh: corrupt: ")
    for problem in problems:
        assert f"\n  {problem}\n" in result.stderr, result.stderr


def test_intact_bundle_passes_signed_or_not(shell: list[str], bundle: Path) -> None:
    assert call(shell, "verify_files", bundle).returncode == 0
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    assert call(shell, "verify_files", bundle).returncode == 0


@pytest.mark.parametrize("name", ["manifest.json", "images/web.tar", "deploy/configs/a b", layout.RECEIVE_SCRIPT])
def test_changed_or_missing_file_is_named(shell: list[str], bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    for changed in (data[:-1] + b"?", data[:-1], b"", data + b"\n"):
        (bundle / name).write_bytes(changed)
        refused(shell, bundle, f"{name}: changed")
    (bundle / name).unlink()
    refused(shell, bundle, f"{name}: missing")
    (bundle / name).symlink_to("/etc/hostname")
    refused(shell, bundle, f"{name}: missing", f"{name} is a link: extra")


@pytest.mark.parametrize("name", ["extra", ".hidden", "..hidden", "a b/c d", "images/web.tar.old", "deploy/.x/y", "-e"])
def test_extra_file_is_named(shell: list[str], bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("")
    refused(shell, bundle, f"{name}: extra")


def test_env_file_is_accepted_if_the_version_is_loaded(shell: list[str], bundle: Path) -> None:
    (bundle / "deploy/.env").write_text("TOKEN=x\n")
    assert call(shell, "verify_files; check_env_file", bundle).returncode == 0
    result = call(shell, "verify_files; is_new=yes; check_env_file", bundle)
    assert (result.returncode, "\n  deploy/.env: extra\n" in result.stderr) == (6, True), result.stderr
    (bundle / "deploy/.env").unlink()
    (bundle / "deploy/.env").symlink_to("configs/a b")
    refused(shell, bundle, "deploy/.env is a link: extra")


@pytest.mark.parametrize("directory", ["SHA256SUMS.sig\n.", "manifest.json\n."])
def test_name_with_line_break_hides_nothing(shell: list[str], bundle: Path, directory: str) -> None:
    (bundle / directory).mkdir()
    (bundle / directory / "manifest.json").write_text("another")
    refused(shell, bundle, f"{directory[:-2]} and a line break: extra")


def test_links_and_pipes_are_named(shell: list[str], bundle: Path) -> None:
    (bundle / "link").symlink_to("deploy")
    (bundle / "nowhere").symlink_to("nothing")
    os.mkfifo(bundle / "pipe")
    refused(shell, bundle, "link is a link: extra", "nowhere is a link: extra", "pipe is not a file: extra")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "deploy/../manifest.json", "./manifest.json"])
def test_checksums_refuse_outside_names(shell: list[str], bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_text("")
    digest = subprocess.run(["sha256sum", name], cwd=bundle, capture_output=True, text=True, check=True).stdout[:64]
    with (bundle / layout.CHECKSUMS_FILE).open("a") as file:
        file.write(f"{digest}  {name}\n")
    refused(shell, bundle, f"{name}: invalid file name")


def test_missing_checksums_are_refused(shell: list[str], bundle: Path) -> None:
    (bundle / layout.CHECKSUMS_FILE).unlink()
    refused(shell, bundle)


def test_missing_checksums_are_no_bad_signature(shell: list[str], bundle: Path) -> None:
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    (bundle / layout.CHECKSUMS_FILE).unlink()
    for pipe in (False, True):
        if pipe:
            os.mkfifo(bundle / layout.CHECKSUMS_FILE)
        result = call(shell, "signer=ada allowed_signers=/dev/null; verify_signature", bundle)
        assert (result.returncode, "SHA256SUMS is missing" in result.stderr) == (6, True), result.stderr


@pytest.mark.parametrize(
    "options",
    [["--what"], ["more"], ["--signer"], ["--signer", "a"], ["--allowed-signers", "f"], ["--revoked", "f"],
     ["--allowed-signers", "", "--signer", "a"]],
)  # fmt: skip
def test_invalid_command_line_does_nothing(shell: list[str], bundle: Path, options: list[str]) -> None:
    command = [*shell, str(bundle / layout.RECEIVE_SCRIPT), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert result.returncode == 2
    assert result.stderr.startswith("receive.sh: usage: ")


def test_help_lists_exit_codes_and_options(shell: list[str], bundle: Path) -> None:
    command = [*shell, str(bundle / layout.RECEIVE_SCRIPT), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    for text in ("0 ", "2 ", "3 ", "6 ", "130 ", "--allowed-signers", "--signer", "--allow-older", "--revoked"):
        assert text in result.stdout


def test_missing_tool_is_named(shell: list[str], bundle: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "df", "dirname", "head", "realpath", "sha256sum", "sort", "tail"):
        (tools / name).symlink_to(shutil.which(name) or name)
    command = [*shell, str(bundle / layout.RECEIVE_SCRIPT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tools)})
    assert (result.returncode, result.stderr) == (3, "receive.sh: engine: docker is not installed or not on PATH\n")


def test_extra_file_is_not_to_be_copied_again(shell: list[str], bundle: Path) -> None:
    (bundle / "session.key").write_text("key")
    result = call(shell, "verify_files", bundle)
    assert "Move these out of the bundle, or remove them:\n  session.key: extra\n" in result.stderr
    assert "Copy these again" not in result.stderr
    (bundle / "manifest.json").unlink()
    result = call(shell, "verify_files", bundle)
    assert "Copy these again, and only these:\n  manifest.json: missing\nMove these" in result.stderr
