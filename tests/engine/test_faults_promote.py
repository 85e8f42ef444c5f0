"""Refused promotions (stale, untested, other content, full disk, concurrent), and bundles that were changed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import BundleError
from tests.conftest import Project
from tests.faults import labs, no_traceback, refused
from tests.thorough import keep

CONTEXT = 'context = "app"\n'


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of all files below `directory`, except locks."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def based(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Project]:
    """Create a tested project whose image has a base, a target and a build argument."""
    project = make_tiny()
    assert project.lyra("build").code == 0
    (image,) = [tag for image in engine.api.images() for tag in image["RepoTags"] or [] if tag.startswith("tiny/web")]
    with (project.root / "base.tar").open("wb") as file:
        file.writelines(engine.api.get_image(image))
    project.clean()
    dockerfile = "ARG BASE=starter\nFROM ${BASE} AS one\nARG WORD\nCOPY www /www\nFROM one AS two\n"
    (project.root / "app" / "Dockerfile").write_text(dockerfile)
    more = f'{CONTEXT}target = "one"\nargs = {{ WORD = "a" }}\nbases = {{ starter = "starter" }}\n'
    project.replace(".lyra.toml", CONTEXT, f'{more}\n[bases.starter]\narchive = "base.tar"\n')
    project.commit()
    result = project.lyra("lock.update")
    assert result.code == 0, result.text
    project.commit()
    result = project.lyra("build", "test")
    assert result.code == 0, result.text
    yield project
    project.clean()


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("app/www/index.html", "tiny", "tinier", "context"),
        ("app/Dockerfile", "ARG WORD", "ARG WORD=b", "dockerfile"),
        (".lyra.toml", 'WORD = "a"', 'WORD = "b"', "args"),
        (".lyra.toml", 'target = "one"', 'target = "two"', "target"),
        (".lyra.lock.toml", "sha256:", "sha256:", "bases"),
    ],
)
def test_changed_input_is_named_by_test_and_promote(
    based: Project, engine: Engine, file: str, old: str, new: str, name: str
) -> None:
    path = based.root / file
    before = path.read_text()
    if name == "bases":
        start = before.index("sha256:") + 7
        path.write_text(before[:start] + ("0" if before[start] != "0" else "1") + before[start + 1 :])
    else:
        path.write_text(before.replace(old, new))
    try:
        for task in ("test", "promote"):
            result = based.lyra(task)
            refused(result, 3, "web was built before its", name, "Run `lyra build` first")
    finally:
        path.write_text(before)
    assert based.bundles() == []
    assert labs(engine) == []


def test_new_commit_or_missing_image_is_named(tiny: Project) -> None:
    assert tiny.lyra("build", "test").code == 0
    tiny.commit("nothing but a commit")
    refused(tiny.lyra("promote"), 3, "web was built before its commit changed")
    tiny.git("reset", "--quiet", "--hard", "HEAD~1")
    tiny.clean()
    refused(tiny.lyra("promote"), 3, "web is no longer in the engine", "Run `lyra build` first")


def test_promote_refuses_untested_set(tiny: Project) -> None:
    refused(tiny.lyra("promote"), 3, "web has not been built", "Run `lyra build` first")
    assert tiny.lyra("build").code == 0
    refused(tiny.lyra("promote"), 3, "have not been tested", "Run `lyra test` first")
    assert tiny.lyra("test").code == 0
    tiny.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good"')
    refused(tiny.lyra("promote"), 3, "have not been tested", "Run `lyra test` first")
    tiny.replace(".lyra.toml", 'body = "Good"', 'body = "Good morning"')
    assert tiny.lyra("promote").code == 0, "exactly the tested set"


@pytest.fixture(scope="module")
def released(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a project with a promoted release 1.0.0, which tests leave unchanged."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    yield project
    project.clean()


def test_second_promotion_changes_nothing(released: Project) -> None:
    before = contents(released.root / "promotion")
    again = released.lyra("promote")
    assert again.code == 0
    assert "1.0.0 is already promoted" in again.out
    assert contents(released.root / "promotion") == before


def test_unwritable_promotion_directory_is_named(released: Project) -> None:
    promotion = released.root / "promotion"
    before = contents(promotion)
    subprocess.run(["mount", "--bind", str(promotion), str(promotion)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(promotion)], check=True)
        refused(released.lyra("promote"), 3, f"{promotion}/tiny", "Read-only file system", "Make it writable")
    finally:
        subprocess.run(["umount", str(promotion)], check=True)
    aside = promotion.rename(released.root.parent / "aside")
    try:
        promotion.touch()
        refused(released.lyra("promote"), 3, str(promotion), "Not a directory", "Move the existing file")
        promotion.unlink()
    finally:
        aside.rename(promotion)
    assert contents(promotion) == before


def test_promote_refuses_version_with_other_content(released: Project) -> None:
    (bundle,) = released.bundles()
    before = contents(bundle)
    released.replace(".lyra.toml", 'name = "tiny"\n', 'name = "tiny"\nlicenses = "MIT"\n')
    released.commit()
    released.git("tag", "--force", "v1.0.0")
    try:
        result = released.lyra("build", "test", "promote")
        refused(result, 6, "1.0.0 is already promoted", "web: promoted sha256:", "now sha256:", "the next version")
        fields = [field for line in result.err.splitlines() if "promoted sha256" in line for field in line.split()]
        assert len({field.rstrip(",") for field in fields if field.startswith("sha256:")}) == 2
    finally:
        released.git("reset", "--quiet", "--hard", "HEAD~1")
        released.git("tag", "--force", "v1.0.0")
    assert contents(bundle) == before
    assert released.lyra("build", "test", "promote").code == 0, "at the first commit, the content is the same again"


@pytest.fixture
def mounted(tiny: Project) -> Iterator[Callable[[Path, str], None]]:
    """Return a function that mounts a small tmpfs on a directory, until the end of the test."""
    mount_points: list[Path] = []

    def mount(directory: Path, size: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True)
        mount_points.append(directory)

    yield mount
    try:
        tiny.clean()  # while the journal still exists, which lists our objects
    finally:
        for directory in reversed(mount_points):
            subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path, free: int) -> Path:
    """Fill the file system of `directory` except for `free` bytes."""
    filler = directory / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(directory).free - free))
    return filler


def test_full_disk_leaves_bundles_unchanged(tiny: Project, mounted: Callable[[Path, str], None]) -> None:
    promotion = tiny.root / "promotion"
    mounted(promotion, "24m")
    tiny.git("tag", "v1.0.0")
    assert tiny.lyra("build", "test", "promote").code == 0
    (first,) = tiny.bundles()
    before = contents(promotion)
    size = sum(len(data) for data in contents(first / "images").values())
    (tiny.root / "app/motd.txt").write_text("Good morning\n" + "a long text\n" * 400_000)
    tiny.commit("next")
    tiny.git("tag", "v1.1.0")
    assert tiny.lyra("build", "test").code == 0
    for free, stage in ((size // 2, "spool"), (size + size // 2, "archive"), (2 * size + 200_000, "configs")):
        filler = fill(promotion, free)
        result = tiny.lyra("promote")
        refused(result, 3, "no space left", str(promotion), "1.1.0", "Free some space")
        filler.unlink()
        assert (", verified" in result.text) == (stage == "configs"), f"not the {stage}"
        assert contents(promotion) == before
        assert not list(promotion.glob("*/.staging*"))
    assert tiny.lyra("promote", "verify").code == 0
    assert len(tiny.bundles()) == 2


@pytest.mark.parametrize("size", keep(1, ["4k", "12k"]))
def test_full_disk_under_run_directory_is_reported(
    tiny: Project, engine: Engine, mounted: Callable[[Path, str], None], size: str
) -> None:
    assert tiny.lyra("build").code == 0
    shutil.rmtree(tiny.root / ".lyra")
    mounted(tiny.root / ".lyra", size)
    for task in (("build", "--no-cache"), ("test",)):
        refused(tiny.lyra(*task), 3, "no space left", ".lyra")
    assert labs(engine) == []


@pytest.mark.thorough
def test_log_that_fills_the_disk_is_reported(
    tiny: Project, engine: Engine, mounted: Callable[[Path, str], None]
) -> None:
    if engine.facts.release < (26, 0):
        pytest.skip("this engine bind-mounts files of the run directory and does not see the test's tmpfs there")
    health = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
    script = "dd if=/dev/zero bs=1k count=900; exec busybox httpd -f -p 8080 -h /www"
    tiny.replace(".lyra.toml", health, f"{health}\ncommand = ['/bin/sh', '-c', '{script}']")
    assert tiny.lyra("build").code == 0
    shutil.rmtree(tiny.root / ".lyra")
    mounted(tiny.root / ".lyra", "256k")
    refused(tiny.lyra("test"), 3, "no space left", "logs/web.log")
    assert labs(engine) == []


@pytest.mark.thorough
def test_full_disk_under_the_journal_is_reported(tiny: Project, mounted: Callable[[Path, str], None]) -> None:
    mounted(tiny.state, "512k")
    filler = fill(tiny.state, 0)
    refused(tiny.lyra("build"), 3, "no space left", str(tiny.state))
    filler.unlink()
    fill(tiny.state, 4096)
    refused(tiny.lyra("build", "test"), 3, "no space left")
    (tiny.state / "filler").unlink()
    assert tiny.lyra("build", "test").code == 0


def test_verify_detects_any_changed_byte_of_a_bundle(released: Project, tmp_path: Path) -> None:
    (bundle,) = released.bundles()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    files = sorted(name for name in contents(copy))
    assert len(files) > 12
    for name in files:
        data = (copy / name).read_bytes()
        for offset in sorted({0, len(data) // 2, len(data) - 1} if data else set()):
            (copy / name).write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
            with pytest.raises(BundleError) as error:
                verify_bundle(copy)
            text = "\n".join((error.value.message, *error.value.details))
            # A changed line of the checksums is reported as a change of its file.
            assert name in text or (name == "SHA256SUMS" and ": " in text), f"{name} at {offset}: {text}"
        (copy / name).unlink()
        with pytest.raises(BundleError) as error:
            verify_bundle(copy)
        assert name in "\n".join((error.value.message, *error.value.details)), name
        (copy / name).write_bytes(data)
    assert verify_bundle(copy).version == "1.0.0"


def test_verify_command_names_bad_files(released: Project, tmp_path: Path) -> None:
    (bundle,) = released.bundles()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for line in (["verify", str(copy)], ["verify"], ["verify", "bundle.list"]):
        result = released.lyra(*line)
        assert result.code == 0, result.text
        assert result.out.count(": intact, ") == line.count("verify")
    (copy / "images" / "extra.tar").write_bytes(b"x")
    refused(released.lyra("verify", str(copy)), 6, "images/extra.tar: extra", "Copy the bundle again")
    (copy / "images" / "extra.tar").unlink()
    (copy / "deploy" / "compose.yaml").unlink()
    refused(released.lyra("verify", str(copy)), 6, "deploy/compose.yaml: missing")
    with (copy / "PROMOTION.md").open("a") as file:
        file.write("trust me\n")
    refused(released.lyra("verify", str(copy)), 6, "PROMOTION.md: changed", "deploy/compose.yaml: missing")


def test_verify_command_refuses_what_is_no_bundle(released: Project, lonely: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(released.lyra("verify", str(tmp_path / "empty")), 6, "not a promotion bundle", "SHA256SUMS")
    refused(released.lyra("verify", str(tmp_path / "nothing")), 6, "not a promotion bundle")
    refused(released.lyra("verify", str(released.root / ".lyra.toml")), 6, "not a promotion bundle")
    refused(released.lyra("verify", "--path", str(tmp_path / "empty")), 6, "not a promotion bundle")
    refused(lonely.lyra("verify"), 2, "No bundles yet")


def test_one_of_two_concurrent_promotions_creates(tiny: Project) -> None:
    tiny.git("tag", "v2.0.0")
    assert tiny.lyra("build", "test").code == 0
    with tiny.start("promote") as first, tiny.start("promote") as second:
        results = [(process, *process.communicate(timeout=60)) for process in (first, second)]
    created = [out for process, out, _ in results if process.returncode == 0 and "promoted 2.0.0 to" in out]
    assert len(created) == 1
    for process, out, err in results:
        assert no_traceback(out + err)
        assert process.returncode == 0 or (process.returncode == 3 and "is in use by another process" in err), out + err
    assert tiny.lyra("verify").code == 0
    assert not list(tiny.root.glob("promotion/*/.staging*"))
