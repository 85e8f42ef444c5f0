"""Killed, failing and concurrent promotions leave complete bundles only."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.content.sbom_process import SbomProcess
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleStore, register_version
from lyra_tasks.bundle.format.manifest import open_bundle
from lyra_tasks.bundle.promote.plan import collect_promotion_facts, plan_promotion
from lyra_tasks.bundle.promote.run import create_bundle
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.config.load import load_config
from lyra_tasks.digests import hex_part
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx.content_store import find_blobs
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.sandbox.layout import SandboxPaths
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import BundleError
from lyra_tasks.locks import file_lock
from lyra_tasks.report.page import render_report
from lyra_tasks.versions.version import CheckoutVersion
from tests.conftest import Project
from tests.engine.disks import fill, small_disk
from tests.engine.relay import Relay, relayed
from tests.faults import becomes, no_traceback, processes_with, refused
from tests.thorough import keep

KILLS = int(os.environ.get("LYRA_TEST_PROMOTE_KILLS", "3"))
FAULTS = int(os.environ.get("LYRA_TEST_PROMOTE_FAULTS", "4"))
FEW_FAULTS = 2
AT_ONCE = int(os.environ.get("LYRA_TEST_PROMOTE_AT_ONCE", "3"))
SAVED = "Saving the complete images"
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))

# An audit hook sees every call that opens, creates, renames or removes something, and can make it fail.
FAULTY = """\
import atexit, errno, os, signal, sys
PLACE, AT, HOW = os.environ["FAULT_PLACE"], int(os.environ["FAULT_AT"]), os.environ["FAULT_HOW"]
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "os.listdir", "os.scandir"}
count = 0
def count_and_fail(event):
    global count
    count += 1
    if count == AT and HOW == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if count == AT:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), PLACE)
def hook(event, arguments):
    if event in EVENTS and any(PLACE in os.fsdecode(item) for item in arguments if isinstance(item, (str, bytes))):
        count_and_fail(event)
sys.addaudithook(hook)
sync = os.fsync
def fsync(handle):
    if PLACE in os.readlink(f"/proc/self/fd/{handle}"):
        count_and_fail("fsync")
    sync(handle)
os.fsync = fsync
def write_count():
    if HOW == "count":
        with open(os.environ["FAULT_COUNT"], "w") as file:
            file.write(str(count))
atexit.register(write_count)
"""


@pytest.fixture(scope="module")
def tested(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a project with a promoted 1.0.0 and a tested 1.1.0."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    assert project.lyra("build", "test", "promote").code == 0
    (project.root / "app/www/index.html").write_text("It is tiny. 1.1.0\n")
    (project.root / "app/motd.txt").write_text("Good morning\n" + "a long text\n" * 400_000)
    project.commit("next")
    project.git("tag", "v1.1.0")
    assert project.lyra("build", "test").code == 0
    yield project
    project.clean()


@pytest.fixture
def shelf(tested: Project) -> Iterator[Path]:
    """Return the directory of the bundles, with only 1.0.0 before and after the test."""
    shelf = tested.root / "promotion" / "tiny"
    keep_first_version(shelf)
    yield shelf
    keep_first_version(shelf)


def keep_first_version(shelf: Path) -> None:
    # The Buildx process of a killed promotion also holds the lock.
    with file_lock(shelf / ".lock", resource="the bundles", timeout=30):
        for path in shelf.iterdir():
            if path.name not in {"1.0.0", layout.INDEX_FILE, ".lock"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    register_version(BundleStore(shelf), open_bundle(shelf / "1.0.0").manifest, 5)
    assert versions_in_index(shelf) == ["1.0.0"]


def versions_in_index(shelf: Path) -> list[str]:
    return [entry.version for entry in BundleStore(shelf).index.versions]


def require_complete(shelf: Path) -> None:
    """Check that every visible version is complete and every listed one exists."""
    listed = set(versions_in_index(shelf))
    visible = {path.name for path in shelf.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert listed <= visible
    assert "1.0.0" in listed
    for name in visible:
        verify_bundle(shelf / name)


def require_recovered(tested: Project, shelf: Path) -> None:
    """Check that the next promotion succeeds and leaves nothing else."""
    again = tested.lyra("promote")
    assert again.code == 0, again.text
    assert versions_in_index(shelf) == ["1.1.0", "1.0.0"]
    assert sorted(path.name for path in shelf.iterdir()) == [".lock", "1.0.0", "1.1.0", layout.INDEX_FILE]
    verify_bundle(shelf / "1.1.0")


@pytest.mark.thorough
def test_killed_promotion_leaves_no_partial_version(tested: Project, shelf: Path) -> None:
    started = time.monotonic()
    assert tested.lyra("promote").code == 0
    duration = time.monotonic() - started
    moments = random.Random(SEED)
    hits = 0
    for number in range(KILLS):
        keep_first_version(shelf)
        running = tested.start("promote")
        # The first half of the time is startup, and the check that nothing has changed since the test.
        time.sleep(moments.uniform(0.4 * duration, duration))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        hits += any(path.name.startswith(".staging") for path in shelf.iterdir())
        require_complete(shelf)
        if number % 10 == 0 or number == KILLS - 1:
            require_recovered(tested, shelf)
    assert hits or KILLS < 10, f"seed {SEED}: no kill came while a bundle was being written"


@pytest.mark.thorough
def test_promotion_waits_for_export_of_killed_one(
    tested: Project, shelf: Path, box: sandbox.Sandbox, engine: Engine, tmp_path: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("classic stores only save complete images")
    started, docker = tmp_path / "started", tmp_path / "docker"
    docker.write_text(
        f"#!/bin/sh\ndirectory=$(echo {shelf}/.staging-export-*)\ntouch {started}\nsleep 2\nmkdir -p $directory/late\n"
    )
    docker.chmod(0o755)
    with relayed(
        box.socket, tmp_path
    ) as relay:  # for the project's own engine, the docker command would not come from PATH
        path = f"{tmp_path}:{tested.environment['PATH']}"
        running = tested.start("promote", PATH=path, DOCKER_HOST=relay.address)
        assert becomes(started.exists, 60)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    assert list(shelf.glob(".staging-export-*"))
    assert tested.lyra("promote").code == 0
    assert becomes(lambda: not processes_with(str(docker)))
    require_recovered(tested, shelf)


@pytest.mark.parametrize("fault", keep(1, [("kill", FEW_FAULTS), ("kill", FAULTS), ("error", FAULTS)]))
def test_promotion_failing_at_any_call_leaves_no_partial_version(
    tested: Project, shelf: Path, tmp_path: Path, fault: tuple[str, int]
) -> None:
    how, faults = fault
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    path = f"{tmp_path}:{tested.environment['PYTHONPATH']}"
    faulty = {"PYTHONPATH": path, "FAULT_PLACE": str(shelf), "FAULT_COUNT": str(tmp_path / "count")}
    counted = tested.lyra("promote", FAULT_HOW="count", FAULT_AT="0", timeout=300, **faulty)
    assert counted.code == 0, counted.text
    count = int((tmp_path / "count").read_text())
    assert count > 100
    chosen = random.Random(SEED).sample(range(1, count + 1), min(faults, count))
    for number, at in enumerate(sorted(chosen)):
        keep_first_version(shelf)
        result = tested.lyra("promote", FAULT_HOW=how, FAULT_AT=str(at), timeout=300, **faulty)
        # A few calls only clean up or check something, and can fail without harm.
        assert result.code in ({-9} if how == "kill" else {0, 3}), f"call {at}: {result.text}"
        assert no_traceback(result.text), f"call {at}: {result.text}"
        require_complete(shelf)
        if how == "error":
            assert not list(shelf.glob(".staging*")) or result.code == 0, f"call {at}: {result.text}"
        if number % 10 == 9 or number == len(chosen) - 1:
            require_recovered(tested, shelf)


@pytest.mark.parametrize("stages", keep(1, [("spool", "configs"), ("archive",)]))
def test_full_disk_leaves_bundles_unchanged(
    tested: Project, shelf: Path, box: sandbox.Sandbox, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    promotion = shelf.parent
    with relayed(box.socket, tmp_path) as relay:  # layers that are sent are kept, and then linked if that is possible
        environment: dict[str, Any] = {**box.environment(), "DOCKER_HOST": relay.address}
        sent = tested.lyra("promote", **environment)
    assert sent.code == 0, sent.text
    keep_first_version(shelf)
    first = shutil.copytree(shelf, tmp_path / "shelf")
    size = sum(path.stat().st_size for path in (first / "1.0.0" / layout.IMAGES_DIRECTORY).iterdir())
    free = {"spool": size // 2, "archive": size + size // 2, "configs": 2 * size + 200_000}
    before = read_files(first)
    with small_disk(promotion, "24m"):
        shutil.copytree(first, shelf)
        for stage in stages:
            filler = fill(promotion, free[stage])
            result = tested.lyra("promote")
            refused(result, 3, "no space left", str(promotion), "1.1.0", "Free some space")
            filler.unlink()
            assert (", verified" in result.text) == (stage == "configs"), f"not the {stage}"
            assert read_files(shelf) == before
            assert not list(shelf.glob(".staging*"))
        require_recovered(tested, shelf)
        assert tested.lyra("verify").code == 0


def test_concurrent_promotions_of_one_version_write_once(tested: Project, shelf: Path) -> None:
    running = [tested.start("promote") for _ in range(AT_ONCE)]
    results = [(process.communicate(timeout=300), process.returncode) for process in running]
    assert [code for _, code in results] == [0] * AT_ONCE, results
    assert sum("promoted 1.1.0 to" in out for (out, _), _ in results) == 1
    assert sum("1.1.0 is already promoted" in out for (out, _), _ in results) == AT_ONCE - 1
    require_recovered(tested, shelf)


def test_concurrent_promotions_of_versions_all_succeed(
    tested: Project, shelf: Path, monkeypatch: pytest.MonkeyPatch, sboms: SbomProcess
) -> None:
    work = open_work(tested, monkeypatch)
    facts = collect_promotion_facts(work)
    versions = [f"2.{number}.0" for number in range(AT_ONCE)]
    plans = [
        plan_promotion(work.config, replace(facts, version=release_of(facts.version, version))) for version in versions
    ]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda plan: create_bundle(plan, work, render_report, sboms), plans))
    finally:
        work.mark_finished()
    assert all(result.is_new for result in results)
    assert versions_in_index(shelf) == [
        *sorted(versions, key=lambda text: int(text.split(".")[1]), reverse=True),
        "1.0.0",
    ]
    require_complete(shelf)


def open_work(tested: Project, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return the workspace of a project in this process."""
    for key, value in tested.environment.items():
        monkeypatch.setenv(key, value)
    return open_workspace(load_config(tested.root))


def release_of(version: CheckoutVersion, text: str) -> CheckoutVersion:
    """Return a release with this version."""
    return replace(version, semver=text, image_tag=text)


def read_files(directory: Path) -> dict[Path, bytes]:
    """Return the content of all files below a directory, except locks."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(directory): path.read_bytes() for path in files}


def test_promotion_is_reproducible_and_its_page_shows_changes(tested: Project, shelf: Path) -> None:
    result = tested.lyra("promote")
    assert result.code == 0, result.text
    assert "needed for the bundle" in result.err
    assert " free\n" in result.err
    before = read_files(shelf / "1.1.0")
    (shelf / ".staging-export-left/layout").mkdir(parents=True)
    assert "is already promoted" in tested.lyra("promote").out
    assert not list(shelf.glob(".staging*")), "leftovers of an earlier promotion are removed"
    keep_first_version(shelf)
    assert tested.lyra("promote").code == 0
    after = read_files(shelf / "1.1.0")
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []
    assert len(before) > 15
    require_changes_shown(tested, shelf)


def require_changes_shown(tested: Project, shelf: Path) -> None:
    """Check that the page of 1.1.0 and `diff` show what changed since 1.0.0; remove a document of 1.1.0."""
    first, second = ((shelf / version / layout.SUMMARY_FILE).read_text() for version in ("1.0.0", "1.1.0"))
    assert "No earlier bundle to compare with" in first
    assert "## What changed since 1.0.0" in second
    assert "| images | web | sha256:" in second
    diff = tested.lyra("diff", "1.0.0", "1.1.0")
    assert re.search(r"images +web", diff.out)
    assert re.search(r"layers +web: sha256:", diff.out)
    assert "no differences" in tested.lyra("diff", "1.1.0", str(shelf / "1.1.0")).out
    assert tested.lyra("diff", "1.0.0", "7.0.0").code == 2
    (shelf / "1.1.0" / layout.TESTS_JSON_FILE).unlink()
    assert tested.lyra("diff", "1.0.0", "1.1.0").code == 6


@dataclass
class Exporter:
    """Promotes 1.1.0 repeatedly with its own layer cache and counts the bytes from the engine."""

    project: Project
    shelf: Path
    relay: Relay
    environment: dict[str, str]

    @property
    def blobs(self) -> list[Path]:
        """Return the cached layers, the largest first."""
        blobs = Path(self.environment["XDG_CACHE_HOME"], "lyra/layers/blobs").iterdir()
        return sorted(blobs, key=lambda path: -path.stat().st_size)

    def promote(self, **more: str) -> tuple[str, int]:
        """Promote and return the output and the bytes from the engine; the bundle must be the same each time."""
        keep_first_version(self.shelf)
        self.relay.take_received()
        environment: dict[str, Any] = {**self.environment, **more}
        result = self.project.lyra("promote", **environment)
        assert result.code == 0, result.text
        verify_bundle(self.shelf / "1.1.0")
        return result.text, self.relay.take_received()

    def image(self) -> dict[str, Any]:
        """Return the image in the manifest of 1.1.0."""
        (image,) = json.loads((self.shelf / "1.1.0" / layout.MANIFEST_FILE).read_text())["images"]
        return dict(image)


def test_export_sends_only_layers_missing_in_the_cache(
    tested: Project, shelf: Path, box: sandbox.Sandbox, engine: Engine, tmp_path: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("classic stores only save complete images")
    with relayed(box.socket, tmp_path) as relay:
        own = {**box.environment(), "DOCKER_HOST": relay.address, "XDG_CACHE_HOME": str(tmp_path)}
        exporter = Exporter(tested, shelf, relay, own)
        output, moved = exporter.promote()
        assert SAVED not in output
        image = exporter.image()
        layers = sum(layer["size"] for layer in image["layers"])
        assert moved > layers
        reference = image["references"][0]
        image_id = engine.api.inspect_image(reference)["Id"]
        assert image["manifest_digest"] == image_id

        exporter.blobs[-1].unlink()
        output, moved = exporter.promote()
        assert SAVED not in output
        assert moved < layers / 10, "inspections, BuildKit's progress, a config, a manifest and one small layer"

        largest = exporter.blobs[0]
        content = largest.read_bytes()
        largest.unlink()
        largest.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
        _, moved = exporter.promote()
        assert moved > len(content), "a damaged blob is fetched again"
        assert largest.read_bytes() == content

        engine.api.tag(open_bundle(shelf / "1.0.0").manifest.images[0].references[0], *reference.rsplit(":", 1))
        try:
            _, moved = exporter.promote()
        finally:
            engine.api.tag(image_id, *reference.rsplit(":", 1))
        assert moved > layers, "the tested image is saved, even if the reference has moved"

        docker = tmp_path / "docker"
        docker.write_text('#!/bin/sh\necho "ERROR: this driver has no such exporter"\nexit 1\n')
        docker.chmod(0o755)
        output, moved = exporter.promote(PATH=f"{tmp_path}:{own['PATH']}")
        assert SAVED in output
        assert "this driver has no such exporter" in output
        assert moved > layers
        assert exporter.image() == image


def test_stored_blobs_are_promoted_without_buildx_unless_damaged(
    tested: Project,
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    sboms: SbomProcess,
) -> None:
    work = open_work(tested, monkeypatch)
    plan = plan_promotion(work.config, collect_promotion_facts(work))
    engine, (image,) = work.engine, plan.images
    if engine.blobs is None:
        pytest.skip("a classic store has no blobs")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in find_blobs(engine.blobs, [str(image.record.manifest_digest)]) or ():
        shutil.copy(path, blobs)

    def promote(**changes: Any) -> str:
        vars(work)["engine"] = replace(engine, blobs=blobs, **changes)
        keep_first_version(shelf)
        capfd.readouterr()
        try:
            create_bundle(plan, work, render_report, sboms)
        finally:
            work.mark_finished()
        verify_bundle(shelf / "1.1.0")
        return capfd.readouterr().err

    assert SAVED not in promote(cli=str(tmp_path / "missing"), stream_api=None)
    layer = blobs / hex_part(open_bundle(shelf / "1.1.0").manifest.images[0].layers[0].digest)
    content = bytearray(layer.read_bytes())
    content[100] ^= 1
    layer.unlink()  # it has been linked
    layer.write_bytes(content)
    with pytest.raises(BundleError, match=f"{layer.name}: does not have the digest in its name"):
        promote()
    require_complete(shelf)
    layer.unlink()
    assert SAVED not in promote(), "the engine exports what cannot be read"


def test_rehearsal_runs_checks_and_leaves_nothing(tested: Project, shelf: Path) -> None:
    (state,) = tested.state.iterdir()
    name = SandboxPaths(state / "rehearsal").name
    dry_run = tested.lyra("bundle.rehearse", "1.0.0", "--dry-run", "--json")
    assert json.loads(dry_run.out)["suites"] == ["bookworm"]
    assert json.loads(dry_run.out)["env_variables"] == ["TOKEN", "WEB_HTTP_PUBLISH", "WEB_KEY_FILE"]
    assert not (state / "rehearsal").exists()
    tested.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good evening"')
    try:
        failed = tested.lyra("bundle.rehearse", "1.0.0", "--json")
    finally:
        tested.replace(".lyra.toml", 'body = "Good evening"', 'body = "Good morning"')
    assert failed.code == 5, failed.text
    (document,) = json.loads(failed.out)["engines"]
    assert document["engine"].startswith("20.10.")
    assert document["store"] == "classic"
    assert {check["name"]: check["outcome"] for check in document["checks"]} == {
        "the page is there": "passed",
        "the config is in place": "failed",
        "the secret is in place, for the service alone": "passed",
        "the volume can be written": "passed",
    }
    assert "The checks are those of the current commit" in failed.err
    script = shelf / "1.0.0" / layout.RECEIVE_SCRIPT
    text = script.read_text()
    try:
        script.write_text(text.replace("min_engine=20.10\n", "min_engine=99.0\n"))
        assert tested.lyra("bundle.rehearse", "1.0.0").code == 6, "the bundle was changed"
    finally:
        script.write_text(text)
    assert not (state / "rehearsal").exists()
    assert not Path("/run", name).exists()
    assert processes_with(name) == []
