"""Promotions that must not be: stale, untested, other bytes, no room, two at once; bundles that were tampered with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.bundle.verify.bundle import verify_bundle
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import BundleError
from tests.conftest import Project
from tests.faults import labs, no_traceback, refused

CONTEXT = 'context = "app"\n'


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes, locks left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def based(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Project]:
    """A tested project whose image has a base, a target and an argument."""
    project = make_tiny()
    assert project.lyra("build").code == 0
    (image,) = [tag for each in engine.api.images() for tag in each["RepoTags"] or [] if tag.startswith("tiny/web")]
    with (project.root / "base.tar").open("wb") as file:
        file.writelines(engine.api.get_image(image))
    project.clean()
    dockerfile = "ARG BASE=starter\nFROM ${BASE} AS one\nARG WORD\nCOPY www /www\nFROM one AS two\n"
    (project.root / "app" / "Dockerfile").write_text(dockerfile)
    more = f'{CONTEXT}target = "one"\nargs = {{ WORD = "a" }}\nbases = {{ starter = "starter" }}\n'
    project.replace(".lyra.toml", CONTEXT, f'{more}\n[bases.starter]\narchive = "base.tar"\n')
    project.commit()
    result = project.lyra("bases.build")
    assert result.code == 0, result.text
    project.commit()
    result = project.lyra("build", "test")
    assert result.code == 0, result.text
    yield project
    project.clean()


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("app/www/index.html", "tiny", "tinier", "context"),
        ("app/Dockerfile", "ARG WORD", "ARG WORD=b", "dockerfile"),
        (".lyra.toml", 'WORD = "a"', 'WORD = "b"', "args"),
        (".lyra.toml", 'target = "one"', 'target = "two"', "target"),
        (".lyra.lock.toml", "sha256:", "sha256:", "bases"),
    ],
)
def test_an_input_that_changed_is_named_by_test_and_promote(
    based: Project, engine: Engine, file: str, old: str, new: str, named: str
) -> None:
    path = based.root / file
    before = path.read_text()
    if named == "bases":
        start = before.index("sha256:") + 7
        path.write_text(before[:start] + ("0" if before[start] != "0" else "1") + before[start + 1 :])
    else:
        path.write_text(before.replace(old, new))
    try:
        for word in ("test", "promote"):
            result = based.lyra(word)
            refused(result, 3, "web was built before its", named, "run `build` first")
    finally:
        path.write_text(before)
    assert based.bundles() == []
    assert labs(engine) == []


def test_a_commit_after_the_build_and_an_image_that_is_gone_are_named(tiny: Project) -> None:
    assert tiny.lyra("build", "test").code == 0
    tiny.commit("nothing but a commit")
    refused(tiny.lyra("promote"), 3, "web was built before its commit changed")
    tiny.git("reset", "--quiet", "--hard", "HEAD~1")
    tiny.clean()
    refused(tiny.lyra("promote"), 3, "web is no longer in the engine", "run `build` first")


def test_what_was_not_tested_is_not_promoted(tiny: Project) -> None:
    refused(tiny.lyra("promote"), 3, "web has not been built", "run `build` first")
    assert tiny.lyra("build").code == 0
    refused(tiny.lyra("promote"), 3, "has not been tested", "run `test` first")
    assert tiny.lyra("test").code == 0
    tiny.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good"')
    refused(tiny.lyra("promote"), 3, "has not been tested", "run `test` first")
    tiny.replace(".lyra.toml", 'body = "Good"', 'body = "Good morning"')
    assert tiny.lyra("promote").code == 0, "the very set that was tested"


@pytest.fixture(scope="module")
def released(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """A project with a promoted release 1.0.0; tests leave it as it was."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    yield project
    project.clean()


def test_promoting_again_says_so_and_changes_nothing(released: Project) -> None:
    before = contents(released.root / "promotion")
    again = released.lyra("promote")
    assert again.code == 0
    assert "1.0.0 is promoted already" in again.out
    assert contents(released.root / "promotion") == before


def test_a_place_that_takes_no_bundles_is_named(released: Project) -> None:
    promotion = released.root / "promotion"
    before = contents(promotion)
    subprocess.run(["mount", "--bind", str(promotion), str(promotion)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(promotion)], check=True)
        refused(released.lyra("promote"), 3, f"{promotion}/tiny", "Read-only file system", "give yourself the right")
    finally:
        subprocess.run(["umount", str(promotion)], check=True)
    aside = promotion.rename(released.root.parent / "aside")
    try:
        promotion.touch()
        refused(released.lyra("promote"), 3, str(promotion), "Not a directory", "move aside what is there")
        promotion.unlink()
    finally:
        aside.rename(promotion)
    assert contents(promotion) == before


def test_one_version_never_gets_other_bytes(released: Project) -> None:
    (bundle,) = released.bundles()
    before = contents(bundle)
    released.replace(".lyra.toml", 'name = "tiny"\n', 'name = "tiny"\nlicenses = "MIT"\n')
    released.commit()
    released.git("tag", "--force", "v1.0.0")
    try:
        result = released.lyra("build", "test", "promote")
        refused(result, 6, "1.0.0 is promoted already", "web: promoted sha256:", "now sha256:", "the next version")
        digests = [word for line in result.err.splitlines() if "promoted sha256" in line for word in line.split()]
        assert len({word.rstrip(",") for word in digests if word.startswith("sha256:")}) == 2
    finally:
        released.git("reset", "--quiet", "--hard", "HEAD~1")
        released.git("tag", "--force", "v1.0.0")
    assert contents(bundle) == before
    assert released.lyra("build", "test", "promote").code == 0, "back at the first commit it is the same again"


@pytest.fixture
def mounted(tiny: Project) -> Iterator[Callable[[Path, str], None]]:
    """Mounts a small tmpfs of a size on a folder; unmounted at the end."""
    places: list[Path] = []

    def mount(place: Path, size: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        places.append(place)

    yield mount
    try:
        tiny.clean()  # while the journal is there that says what is ours
    finally:
        for place in reversed(places):
            subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """Fill the file system of `place` but for so many bytes."""
    filler = place / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(place).free - leave))
    return filler


def test_a_full_disk_during_promote_leaves_what_was_there_and_nothing_half(
    tiny: Project, mounted: Callable[[Path, str], None]
) -> None:
    promotion = tiny.root / "promotion"
    mounted(promotion, "24m")
    tiny.git("tag", "v1.0.0")
    assert tiny.lyra("build", "test", "promote").code == 0
    (first,) = tiny.bundles()
    kept = contents(promotion)
    size = sum(len(data) for data in contents(first / "images").values())
    tiny.commit("next")
    tiny.git("tag", "v1.1.0")
    assert tiny.lyra("build", "test").code == 0
    newest = max(tiny.state.glob("*/evidence/*/logs/web.log"), key=lambda path: path.stat().st_mtime)
    newest.write_text(newest.read_text() + "a long log\n" * 400_000)
    for room, stage in ((size // 2, "spool"), (size + size // 2, "archive"), (2 * size + 200_000, "evidence")):
        filler = fill(promotion, room)
        result = tiny.lyra("promote")
        refused(result, 3, "no space left", str(promotion), "1.1.0", "free space")
        filler.unlink()
        assert ("read back and whole" in result.text) == (stage == "evidence"), f"not the {stage}"
        assert contents(promotion) == kept
        assert not list(promotion.glob("*/.staging*"))
    assert tiny.lyra("promote", "verify").code == 0
    assert len(tiny.bundles()) == 2


@pytest.mark.parametrize("size", ["4k", "12k"])
def test_a_full_disk_under_the_runs_folder_is_told(
    tiny: Project, engine: Engine, mounted: Callable[[Path, str], None], size: str
) -> None:
    assert tiny.lyra("build").code == 0
    shutil.rmtree(tiny.root / ".lyra")
    mounted(tiny.root / ".lyra", size)
    for word in ("build", "test"):
        refused(tiny.lyra(word), 3, "no space left", ".lyra")
    assert labs(engine) == []


def test_a_log_that_fills_the_disk_is_told(tiny: Project, engine: Engine, mounted: Callable[[Path, str], None]) -> None:
    if engine.facts.release < (26, 0):
        pytest.skip("this engine binds files out of the folder of the run, and does not see the test's disk there")
    health = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
    script = "dd if=/dev/zero bs=1k count=900; exec busybox httpd -f -p 8080 -h /www"
    tiny.replace(".lyra.toml", health, f"{health}\ncommand = ['/bin/sh', '-c', '{script}']")
    assert tiny.lyra("build").code == 0
    shutil.rmtree(tiny.root / ".lyra")
    mounted(tiny.root / ".lyra", "256k")
    refused(tiny.lyra("test"), 3, "no space left", "logs/web.log")
    assert labs(engine) == []


def test_a_full_disk_under_the_journal_is_told(tiny: Project, mounted: Callable[[Path, str], None]) -> None:
    mounted(tiny.state, "512k")
    filler = fill(tiny.state, 0)
    refused(tiny.lyra("build"), 3, "no space left", str(tiny.state))
    filler.unlink()
    fill(tiny.state, 4096)
    refused(tiny.lyra("build", "test"), 3, "no space left")
    (tiny.state / "filler").unlink()
    assert tiny.lyra("build", "test").code == 0


def test_a_byte_anywhere_in_a_bundle_cannot_be_changed_unseen(released: Project, tmp_path: Path) -> None:
    (bundle,) = released.bundles()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    files = sorted(name for name in contents(copy))
    assert len(files) > 12
    for name in files:
        data = (copy / name).read_bytes()
        for at in sorted({0, len(data) // 2, len(data) - 1} if data else set()):
            (copy / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(BundleError) as fault:
                verify_bundle(copy)
            told = "\n".join((fault.value.message, *fault.value.details))
            # a changed line of the list of checksums accuses the file that the line is about
            assert name in told or (name == "SHA256SUMS" and ": " in told), f"{name} at {at}: {told}"
        (copy / name).unlink()
        with pytest.raises(BundleError) as fault:
            verify_bundle(copy)
        assert name in "\n".join((fault.value.message, *fault.value.details)), name
        (copy / name).write_bytes(data)
    assert verify_bundle(copy).version == "1.0.0"


def test_verify_as_the_receiver_types_it(released: Project, tmp_path: Path) -> None:
    (bundle,) = released.bundles()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for line in (["verify", str(copy)], ["verify"], ["verify", "bundle.list"]):
        result = released.lyra(*line)
        assert result.code == 0, result.text
        assert result.out.count("every byte checked") == line.count("verify")
    (copy / "images" / "extra.tar").write_bytes(b"x")
    refused(released.lyra("verify", str(copy)), 6, "images/extra.tar: extra", "copy the bundle again")
    (copy / "images" / "extra.tar").unlink()
    (copy / "deploy" / "compose.yaml").unlink()
    refused(released.lyra("verify", str(copy)), 6, "deploy/compose.yaml: missing")
    with (copy / "PROMOTION.md").open("a") as file:
        file.write("trust me\n")
    refused(released.lyra("verify", str(copy)), 6, "PROMOTION.md: changed", "deploy/compose.yaml: missing")


def test_what_is_no_bundle_is_not_verified(released: Project, lonely: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(released.lyra("verify", str(tmp_path / "empty")), 6, "not a promotion bundle", "SHA256SUMS")
    refused(released.lyra("verify", str(tmp_path / "nothing")), 6, "not a promotion bundle")
    refused(released.lyra("verify", str(released.root / ".lyra.toml")), 6, "not a promotion bundle")
    refused(released.lyra("verify", "--path", str(tmp_path / "empty")), 6, "not a promotion bundle")
    refused(lonely.lyra("verify"), 2, "there is no bundle yet")


def test_of_two_promotes_at_once_one_makes_it(tiny: Project) -> None:
    tiny.git("tag", "v2.0.0")
    assert tiny.lyra("build", "test").code == 0
    with tiny.start("promote") as one, tiny.start("promote") as other:
        results = [(each, *each.communicate(timeout=60)) for each in (one, other)]
    made = [out for each, out, _ in results if each.returncode == 0 and "promoted 2.0.0 to" in out]
    assert len(made) == 1
    for each, out, err in results:
        assert no_traceback(out + err)
        assert each.returncode == 0 or (each.returncode == 3 and "is in use by another process" in err), out + err
    assert tiny.lyra("verify").code == 0
    assert not list(tiny.root.glob("promotion/*/.staging*"))
