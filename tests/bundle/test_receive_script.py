"""`receive.sh` without an engine, as dash and as busybox read it: files, versions, options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from semver import Version

from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.manifest import (
    BundledImage,
    BundleSource,
    ImageLayer,
    Manifest,
    Requirements,
    TestSummary,
)

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
    images=[
        BundledImage(
            name="web",
            services=["web"],
            references=["shop/web:1.2.0-rc.1_g1a2b3c4", "shop/web:latest"],
            file="images/web-1.2.0-rc.1+g1a2b3c4-linux-amd64.tar",
            sha256="0" * 64,
            size=1000,
            platform="linux/amd64",
            config_digest=DIGESTS[0],
            manifest_digest=DIGESTS[1],
            diff_ids=[DIGESTS[2]],
            layers=[ImageLayer(media_type="x", digest=DIGESTS[2], size=900, unpacked_size=3000)],
        )
    ],
    services=[],
    tests=TestSummary(passed=1, failed=0),
    deviations=0,
)
SCRIPT = render_receive_script(MANIFEST)
FUNCTIONS = SCRIPT.removesuffix('main "$@"\n')

ORDERED = (
    "0.9.10", "1.0.0-0", "1.0.0-2", "1.0.0-10", "1.0.0-99999999999999999999", "1.0.0--", "1.0.0-1-", "1.0.0-1a",
    "1.0.0-A", "1.0.0-Z.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-alpha-1", "1.0.0-alpha0",
    "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0-rc.1.dev.3+gabc", "1.0.0-rc.2",
    "1.0.0", "1.0.1-dev.9+g1a2b3c4", "1.0.1-dev.10+g0000000", "1.0.1", "1.2.0", "1.10.0", "9.0.0", "10.0.0",
    "10.0.99999999999999999999",
)  # fmt: skip


@pytest.fixture(params=["dash", "busybox sh"])
def shell(request: pytest.FixtureRequest, busybox: Path) -> list[str]:
    """The words that run a script."""
    return [str(shutil.which("dash"))] if request.param == "dash" else [str(busybox / "busybox"), "sh"]


def called(shell: list[str], call: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call a function of the script."""
    return subprocess.run(
        [*shell, "-c", f"{FUNCTIONS}\n{call}"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_shellcheck_finds_nothing_in_the_script_as_it_is_kept_and_as_it_is_written(tmp_path: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    (tmp_path / "receive.sh").write_text(SCRIPT)
    kept = Path(sys.modules[render_receive_script.__module__].__file__ or "").with_name("receive.sh")
    for script in (kept, tmp_path / "receive.sh"):
        done = subprocess.run([checker, "--shell=sh", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_the_script_is_told_what_it_needs() -> None:
    assert "\nversion=1.2.0-rc.1+g1a2b3c4\n" in SCRIPT
    needs = "images/web-1.2.0-rc.1+g1a2b3c4-linux-amd64.tar linux/amd64 4000 - - -"
    assert f"\n{needs} {DIGESTS[0]} {DIGESTS[1]} shop/web:1.2.0-rc.1_g1a2b3c4 shop/web:latest\n" in SCRIPT
    assert "example/web" not in SCRIPT


def test_a_layer_of_several_images_takes_room_once() -> None:
    (image,) = MANIFEST.images
    own = ImageLayer(media_type="x", digest=DIGESTS[3], size=90, unpacked_size=300)
    twice = {"layers": [*image.layers, own, own], "diff_ids": [DIGESTS[2]] * 3}
    door = image.model_copy(update={"name": "door", "file": "images/door.tar", **twice})
    arm = image.model_copy(update={"platform": "linux/arm64", "file": "images/web-arm64.tar"})
    script = render_receive_script(MANIFEST.model_copy(update={"images": [image, door, arm]}))
    lines = [line.split() for line in script.splitlines() if line.startswith("images/")]
    assert [(name, int(needed)) for name, _, needed, *_ in lines] == [
        (image.file, 1000 + 3000), ("images/door.tar", 1000 + 300), ("images/web-arm64.tar", 1000 + 3000)
    ]  # fmt: skip


@pytest.mark.parametrize("system", ["linux/amd64", "linux/arm64"])
def test_of_several_platforms_a_node_takes_the_images_for_its_own(shell: list[str], system: str) -> None:
    (image,) = MANIFEST.images
    others = {"platform": "linux/arm64/v8", "file": image.file.replace("amd64", "arm64")}
    alone = {"name": "door", "file": "images/door-1.2.0-linux-amd64.tar"}
    both = [image, image.model_copy(update=others)]
    script = render_receive_script(MANIFEST.model_copy(update={"images": both}))
    assert "platforms='linux/amd64 linux/arm64/v8'\n" in script
    functions = script.removesuffix('main "$@"\n')
    done = subprocess.run(
        [*shell, "-c", f"{functions}\nsystem={system}; each_image echo"], capture_output=True, text=True, check=True
    )
    expected = [each for each in both if each.platform.startswith(system)]
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[each.file, "4000"] for each in expected]
    incomplete = MANIFEST.model_copy(update={"images": [*both, image.model_copy(update=alone)]})
    assert "platforms=linux/amd64\n" in render_receive_script(incomplete), "only those that all images are there for"


def test_a_script_that_was_cut_off_does_nothing(shell: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*shell, "-c", FUNCTIONS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_versions_sort_by_semantic_precedence(shell: list[str]) -> None:
    known = [Version.parse(each) for each in ORDERED]
    assert known == sorted(known), "the list itself"
    calls = "\n".join(f"version_key '{each.replace('+', '_')}'" for each in ORDERED)
    keys = called(shell, calls).stdout.splitlines()
    assert len(keys) == len(ORDERED)
    for (one, low), (other, high) in pairwise(zip(ORDERED, keys, strict=True)):
        assert low < high, f"{one} must be before {other}"


def test_build_metadata_is_no_part_of_precedence(shell: list[str]) -> None:
    one, other, tag = called(
        shell, "version_key 1.0.0-a.1+x; version_key 1.0.0-a.1+y.9; version_key 1.0.0-a.1_z"
    ).stdout.split()
    assert one == other == tag


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        *[("1.2.3", 0), ("1.2.3-rc.1", 0), ("1.2.3_g1a", 0)],
        *[("1.2", 1), ("1", 1), ("latest", 1), ("1.2.3.4", 1), ("1.x.3", 1)],
    ],
)
def test_a_tag_is_a_version_or_moves(shell: list[str], tag: str, code: int) -> None:
    assert called(shell, f"is_version {tag}").returncode == code


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with checksums, in a path with spaces."""
    folder = tmp_path / "a folder's $name" / "1.2.0"
    for name in ("manifest.json", "images/web.tar", "deploy/.env.example", "deploy/configs/a b", "evidence/logs/w.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"this is {name}\n")
    (folder / layout.RECEIVE_SCRIPT).write_text(SCRIPT)
    write_checksums(folder)
    return folder


def refused(shell: list[str], bundle: Path, *said: str) -> None:
    done = called(shell, "files", bundle)
    assert done.returncode == 6, done.stdout + done.stderr
    assert done.stderr.startswith("receive.sh: corrupt: ")
    for each in said:
        assert f"\n  {each}\n" in done.stderr, done.stderr


def test_a_whole_bundle_is_whole_signed_or_not(shell: list[str], bundle: Path) -> None:
    assert called(shell, "files", bundle).returncode == 0
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    assert called(shell, "files", bundle).returncode == 0


@pytest.mark.parametrize("name", ["manifest.json", "images/web.tar", "deploy/configs/a b", layout.RECEIVE_SCRIPT])
def test_a_file_that_was_changed_cut_or_taken_is_named(shell: list[str], bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    for changed in (data[:-1] + b"?", data[:-1], b"", data + b"\n"):
        (bundle / name).write_bytes(changed)
        refused(shell, bundle, f"{name}: changed")
    (bundle / name).unlink()
    refused(shell, bundle, f"{name}: missing")
    (bundle / name).symlink_to("/etc/hostname")
    refused(shell, bundle, f"{name}: missing", f"{name} is a link: extra")


@pytest.mark.parametrize("name", ["extra", ".hidden", "..hidden", "a b/c d", "images/web.tar.old", "deploy/.x/y", "-e"])
def test_a_file_that_is_extra_is_named(shell: list[str], bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("")
    refused(shell, bundle, f"{name}: extra")


def test_what_an_operator_filled_in_may_be_there_where_the_version_is_loaded(shell: list[str], bundle: Path) -> None:
    (bundle / "deploy/.env").write_text("TOKEN=x\n")
    assert called(shell, "files; configuration", bundle).returncode == 0
    fresh = called(shell, "files; fresh=yes; configuration", bundle)
    assert (fresh.returncode, "\n  deploy/.env: extra\n" in fresh.stderr) == (6, True), fresh.stderr
    (bundle / "deploy/.env").unlink()
    (bundle / "deploy/.env").symlink_to("configs/a b")
    refused(shell, bundle, "deploy/.env is a link: extra")


@pytest.mark.parametrize("folder", ["SHA256SUMS.sig\n.", "manifest.json\n."])
def test_a_name_of_two_lines_hides_nothing(shell: list[str], bundle: Path, folder: str) -> None:
    (bundle / folder).mkdir()
    (bundle / folder / "manifest.json").write_text("another")
    refused(shell, bundle, f"{folder[:-2]} and a line break: extra")


def test_links_and_pipes_are_refused(shell: list[str], bundle: Path) -> None:
    (bundle / "link").symlink_to("deploy")
    (bundle / "nowhere").symlink_to("nothing")
    os.mkfifo(bundle / "pipe")
    refused(shell, bundle, "link is a link: extra", "nowhere is a link: extra", "pipe is not a file: extra")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "deploy/../manifest.json", "./manifest.json"])
def test_checksums_name_nothing_outside(shell: list[str], bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_text("")
    digest = subprocess.run(["sha256sum", name], cwd=bundle, capture_output=True, text=True, check=True).stdout[:64]
    with (bundle / layout.CHECKSUMS_FILE).open("a") as file:
        file.write(f"{digest}  {name}\n")
    refused(shell, bundle, f"{name}: not a name for a file of a bundle")


def test_what_is_no_bundle_is_refused(shell: list[str], bundle: Path) -> None:
    (bundle / layout.CHECKSUMS_FILE).unlink()
    refused(shell, bundle)


def test_checksums_that_are_missing_are_no_bad_signature(shell: list[str], bundle: Path) -> None:
    (bundle / layout.SIGNATURE_FILE).write_text("signature")
    (bundle / layout.CHECKSUMS_FILE).unlink()
    for pipe in (False, True):
        if pipe:
            os.mkfifo(bundle / layout.CHECKSUMS_FILE)
        done = called(shell, "signer=ada allowed_signers=/dev/null; signature", bundle)
        assert (done.returncode, "SHA256SUMS is missing" in done.stderr) == (6, True), done.stderr


@pytest.mark.parametrize(
    "options",
    [["--what"], ["more"], ["--signer"], ["--signer", "a"], ["--allowed-signers", "f"], ["--revoked", "f"],
     ["--allowed-signers", "", "--signer", "a"]],
)  # fmt: skip
def test_a_command_line_that_is_not_understood_does_nothing(shell: list[str], bundle: Path, options: list[str]) -> None:
    done = subprocess.run(
        [*shell, bundle / layout.RECEIVE_SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("receive.sh: usage: ")


def test_help_tells_every_exit_code(shell: list[str], bundle: Path) -> None:
    done = subprocess.run(
        [*shell, bundle / layout.RECEIVE_SCRIPT, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for text in ("0 ", "2 ", "3 ", "6 ", "130 ", "--allowed-signers", "--signer", "--allow-older", "--revoked"):
        assert text in done.stdout


def test_a_tool_that_is_missing_is_named(shell: list[str], bundle: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "df", "dirname", "head", "realpath", "sha256sum", "sort", "tail"):
        (tools / name).symlink_to(shutil.which(name) or name)
    run = [*shell, str(bundle / layout.RECEIVE_SCRIPT)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={"PATH": str(tools)})
    assert (done.returncode, done.stderr) == (3, "receive.sh: engine: docker is not installed, or not on PATH\n")
