"""Refused promotions (stale, untested, other content, unwritable), and bundles that were changed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import BundleError
from tests.conftest import Outcome, Project
from tests.engine.disks import fill, small_disk
from tests.faults import labs, refused
from tests.thorough import keep

CONTEXT = 'context = "app"\n'


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of all files below `directory`, except locks."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def promotions(make_tiny: Callable[[], Project]) -> Iterator[tuple[Project, dict[str, Outcome]]]:
    """Promote at each step on the way to release 1.0.0; return the project and the outcomes."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    outcomes = {"not built": project.lyra("promote")}
    assert project.lyra("build").code == 0
    outcomes["not tested"] = project.lyra("promote")
    assert project.lyra("test").code == 0
    project.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good"')
    outcomes["tested otherwise"] = project.lyra("promote")
    project.replace(".lyra.toml", 'body = "Good"', 'body = "Good morning"')
    outcomes["tested"] = project.lyra("promote")
    yield project, outcomes
    project.clean()


@pytest.fixture(scope="module")
def released(promotions: tuple[Project, dict[str, Outcome]]) -> Project:
    """Return the project with the promoted release 1.0.0, which tests leave unchanged."""
    project, outcomes = promotions
    assert outcomes["tested"].code == 0, outcomes["tested"].text
    return project


@pytest.fixture(scope="module")
def based(make_tiny: Callable[[], Project], released: Project, engine: Engine) -> Iterator[Project]:
    """Create a tested project whose image has a base, a target and a build argument."""
    project = make_tiny()
    with (project.root / "base.tar").open("wb") as file:
        file.writelines(engine.api.get_image("tiny/web:1.0.0"))
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


@pytest.mark.parametrize("size", keep(1, ["4k", "12k"]))
def test_full_disk_under_run_directory_is_reported(based: Project, engine: Engine, size: str) -> None:
    with small_disk(based.root / ".lyra", size):
        for task in (("build", "--no-cache"), ("test",)):
            refused(based.lyra(*task), 3, "no space left", ".lyra")
    assert labs(engine) == []


def test_new_commit_or_missing_image_is_named(based: Project) -> None:
    based.commit("nothing but a commit")
    refused(based.lyra("promote"), 3, "web was built before its commit changed")
    based.git("reset", "--quiet", "--hard", "HEAD~1")
    based.clean()
    refused(based.lyra("promote"), 3, "web is no longer in the engine", "Run `lyra build` first")
    assert based.lyra("build").code == 0
    again = based.lyra("promote", "--dry-run")
    assert again.code == 0, f"the image that is built again is the tested one: {again.text}"
    assert based.bundles() == []


def test_promote_refuses_untested_set(promotions: tuple[Project, dict[str, Outcome]]) -> None:
    _, outcomes = promotions
    refused(outcomes["not built"], 3, "web has not been built", "Run `lyra build` first")
    refused(outcomes["not tested"], 3, "have not been tested", "Run `lyra test` first")
    refused(outcomes["tested otherwise"], 3, "have not been tested", "Run `lyra test` first")
    assert outcomes["tested"].code == 0, "exactly the tested set"


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


@pytest.mark.thorough
def test_log_that_fills_the_disk_is_reported(tiny: Project, engine: Engine) -> None:
    if engine.facts.release < (26, 0):
        pytest.skip("this engine bind-mounts files of the run directory and does not see the test's tmpfs there")
    health = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
    script = "dd if=/dev/zero bs=1k count=900; exec busybox httpd -f -p 8080 -h /www"
    tiny.replace(".lyra.toml", health, f"{health}\ncommand = ['/bin/sh', '-c', '{script}']")
    assert tiny.lyra("build").code == 0
    with small_disk(tiny.root / ".lyra", "256k"):
        refused(tiny.lyra("test"), 3, "no space left", "logs/web.log")
    assert labs(engine) == []


@pytest.mark.thorough
def test_full_disk_under_the_journal_is_reported(tiny: Project) -> None:
    with small_disk(tiny.state, "512k"):
        try:
            filler = fill(tiny.state, 0)
            refused(tiny.lyra("build"), 3, "no space left", str(tiny.state))
            filler.unlink()
            fill(tiny.state, 4096)
            refused(tiny.lyra("build", "test"), 3, "no space left")
            (tiny.state / "filler").unlink()
            assert tiny.lyra("build", "test").code == 0
        finally:
            tiny.clean()  # while the journal still exists, which lists our objects


def test_verify_detects_a_changed_byte_in_each_file_of_a_bundle(released: Project, tmp_path: Path) -> None:
    (bundle,) = released.bundles()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    files = sorted(name for name in contents(copy))
    assert len(files) > 12
    for name in files:
        data = (copy / name).read_bytes()
        offset = len(data) // 2
        (copy / name).write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(BundleError) as error:
            verify_bundle(copy)
        text = "\n".join((error.value.message, *error.value.details))
        # A changed line of the checksums is reported as a change of its file.
        assert name in text or (name == "SHA256SUMS" and ": " in text), f"{name} at {offset}: {text}"
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
