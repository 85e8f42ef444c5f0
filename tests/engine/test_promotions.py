"""Promotions that are killed, that fail at any call to the file system, that run at once; what they leave is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import read_index, read_manifest, register_version
from lyra_tasks.bundle.promote import plan
from lyra_tasks.bundle.promote.plan import plan_promotion
from lyra_tasks.bundle.promote.run import create_bundle
from lyra_tasks.bundle.verify.bundle import verify_bundle
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.sandbox.layout import sandbox_paths
from lyra_tasks.engine.workspace import open_workspace
from lyra_tasks.locks import file_lock
from lyra_tasks.report.page import render_report
from lyra_tasks.versions.version import CheckoutVersion
from tests.conftest import Project
from tests.engine.relay import Relay, relayed
from tests.faults import becomes, no_traceback, processes_with

KILLS = int(os.environ.get("LYRA_TEST_PROMOTE_KILLS", "3"))
FAULTS = int(os.environ.get("LYRA_TEST_PROMOTE_FAULTS", "4"))
AT_ONCE = int(os.environ.get("LYRA_TEST_PROMOTE_AT_ONCE", "3"))
WHOLE = "saved whole"
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))

# Python's own audit events tell of every call that opens, makes, names or removes something; a hook may refuse one.
FAULTY = """\
import errno, os, signal, sys
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
    if event in EVENTS and any(PLACE in os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes))):
        count_and_fail(event)
sys.addaudithook(hook)
sync = os.fsync
def fsync(handle):
    if PLACE in os.readlink(f"/proc/self/fd/{handle}"):
        count_and_fail("fsync")
    sync(handle)
os.fsync = fsync
leave = os._exit
def counted(code):
    if HOW == "count":
        with open(os.environ["FAULT_COUNT"], "w") as file:
            file.write(str(count))
    leave(code)
os._exit = counted
"""


@pytest.fixture(scope="module")
def tested(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """A project with a promoted 1.0.0, and a tested 1.1.0."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    assert project.lyra("build", "test", "promote").code == 0
    (project.root / "app/www/index.html").write_text("It is tiny. 1.1.0\n")
    project.commit("next")
    project.git("tag", "v1.1.0")
    assert project.lyra("build", "test").code == 0
    yield project
    project.clean()


@pytest.fixture
def shelf(tested: Project) -> Iterator[Path]:
    """The folder of the versions, with 1.0.0 alone before and after the test."""
    shelf = tested.root / "promotion" / "tiny"
    only_the_first(shelf)
    yield shelf
    only_the_first(shelf)


def only_the_first(shelf: Path) -> None:
    with file_lock(
        shelf / ".lock", resource="the shelf", timeout=30
    ):  # the Buildx of a promotion that was killed holds it, too
        for path in shelf.iterdir():
            if path.name not in {"1.0.0", layout.INDEX_FILE, ".lock"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    register_version(shelf, read_manifest(shelf / "1.0.0"), 5)
    assert [each.version for each in read_index(shelf, "tiny").versions] == ["1.0.0"]


def require_whole(shelf: Path) -> None:
    """Every version that is to be seen is whole, and every one that is listed is there."""
    listed = {each.version for each in read_index(shelf, "tiny").versions}
    seen = {path.name for path in shelf.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert listed <= seen
    assert "1.0.0" in listed
    for name in seen:
        verify_bundle(shelf / name)


def require_mended(tested: Project, shelf: Path) -> None:
    """The same word again makes it, or says that it is there; nothing else is left."""
    again = tested.lyra("promote")
    assert again.code == 0, again.text
    assert [each.version for each in read_index(shelf, "tiny").versions] == ["1.1.0", "1.0.0"]
    assert sorted(path.name for path in shelf.iterdir()) == [".lock", "1.0.0", "1.1.0", layout.INDEX_FILE]
    verify_bundle(shelf / "1.1.0")


def test_killed_promotion_leaves_no_partial_version(tested: Project, shelf: Path) -> None:
    began = time.monotonic()
    assert tested.lyra("promote").code == 0
    whole = time.monotonic() - began
    moments = random.Random(SEED)
    hits = 0
    for number in range(KILLS):
        only_the_first(shelf)
        running = tested.start("promote")
        # the first half of the time is spent on starting, and on looking whether all is as it was tested
        time.sleep(moments.uniform(0.4 * whole, whole))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        hits += any(path.name.startswith(".staging") for path in shelf.iterdir())
        require_whole(shelf)
        if number % 10 == 0 or number == KILLS - 1:
            require_mended(tested, shelf)
    assert hits or KILLS < 10, f"seed {SEED}: no kill came while anything was being made"


def test_promotion_waits_for_export_of_killed_one(
    tested: Project, shelf: Path, box: sandbox.Sandbox, engine: Engine, tmp_path: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("a classic store saves images whole")
    started, docker = tmp_path / "started", tmp_path / "docker"
    docker.write_text(
        f"#!/bin/sh\nplace=$(echo {shelf}/.staging-export-*)\ntouch {started}\nsleep 2\nmkdir -p $place/late\n"
    )
    docker.chmod(0o755)
    with relayed(box.socket, tmp_path) as relay:  # of the project's own engine, the docker command is known
        path = f"{tmp_path}:{tested.environment['PATH']}"
        running = tested.start("promote", PATH=path, DOCKER_HOST=relay.address)
        assert becomes(started.exists)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    assert list(shelf.glob(".staging-export-*"))
    assert tested.lyra("promote").code == 0
    assert becomes(lambda: not processes_with(str(docker)))
    require_mended(tested, shelf)


@pytest.mark.parametrize("how", ["kill", "error"])
def test_promotion_failing_at_any_call_leaves_no_partial_version(
    tested: Project, shelf: Path, tmp_path: Path, how: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    path = f"{tmp_path}:{tested.environment['PYTHONPATH']}"
    faulty = {"PYTHONPATH": path, "FAULT_PLACE": str(shelf), "FAULT_COUNT": str(tmp_path / "count")}
    counted = tested.lyra("promote", FAULT_HOW="count", FAULT_AT="0", timeout=300, **faulty)
    assert counted.code == 0, counted.text
    count = int((tmp_path / "count").read_text())
    assert count > 100
    chosen = random.Random(SEED).sample(range(1, count + 1), min(FAULTS, count))
    for number, at in enumerate(sorted(chosen)):
        only_the_first(shelf)
        result = tested.lyra("promote", FAULT_HOW=how, FAULT_AT=str(at), timeout=300, **faulty)
        # a few calls only tidy up or look, and may fail without harm
        assert result.code in ({-9} if how == "kill" else {0, 3}), f"call {at}: {result.text}"
        assert no_traceback(result.text), f"call {at}: {result.text}"
        require_whole(shelf)
        if how == "error":
            assert not list(shelf.glob(".staging*")) or result.code == 0, f"call {at}: {result.text}"
        if number % 10 == 0 or number == len(chosen) - 1:
            require_mended(tested, shelf)


def test_concurrent_promotions_of_one_version_write_once(tested: Project, shelf: Path) -> None:
    running = [tested.start("promote") for _ in range(AT_ONCE)]
    said = [(each.communicate(timeout=300), each.returncode) for each in running]
    assert [code for _, code in said] == [0] * AT_ONCE, said
    assert sum("promoted 1.1.0 to" in out for (out, _), _ in said) == 1
    assert sum("1.1.0 is promoted already" in out for (out, _), _ in said) == AT_ONCE - 1
    require_mended(tested, shelf)


def test_concurrent_promotions_of_versions_all_succeed(
    tested: Project, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in tested.environment.items():
        monkeypatch.setenv(key, value)
    work = open_workspace(load_config(tested.root))
    found = plan.collect_promotion_facts(work)
    versions = [f"2.{number}.0" for number in range(AT_ONCE)]
    plans = [
        plan_promotion(work.config, replace(found, version=version_called(found.version, each))) for each in versions
    ]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = list(pool.map(lambda each: create_bundle(each, work, render_report), plans))
    finally:
        work.mark_finished()
    assert all(each.is_new for each in made)
    listed = [each.version for each in read_index(shelf, "tiny").versions]
    assert listed == [*sorted(versions, key=lambda text: int(text.split(".")[1]), reverse=True), "1.0.0"]
    require_whole(shelf)


def version_called(like: CheckoutVersion, text: str) -> CheckoutVersion:
    """A release of this name."""
    return replace(like, semver=text, image_tag=text)


def test_promotion_is_reproducible(tested: Project, shelf: Path) -> None:
    assert tested.lyra("promote").code == 0
    before = {path.relative_to(shelf): path.read_bytes() for path in (shelf / "1.1.0").rglob("*") if path.is_file()}
    (shelf / ".staging-export-left/layout").mkdir(parents=True)
    assert "is promoted already" in tested.lyra("promote").out
    assert not list(shelf.glob(".staging*")), "what an earlier one left, because a disk was full"
    only_the_first(shelf)
    assert tested.lyra("promote").code == 0
    after = {path.relative_to(shelf): path.read_bytes() for path in (shelf / "1.1.0").rglob("*") if path.is_file()}
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []
    assert len(before) > 15


@dataclass
class Exporter:
    """Promotes 1.1.0 over and over, with a cache of layers of its own, and counts what the engine sends."""

    project: Project
    shelf: Path
    relay: Relay
    environment: dict[str, str]

    @property
    def blobs(self) -> list[Path]:
        """The layers in the cache, the largest first."""
        kept = Path(self.environment["XDG_CACHE_HOME"], "lyra/layers/blobs").iterdir()
        return sorted(kept, key=lambda path: -path.stat().st_size)

    def promote(self, **more: str) -> tuple[str, int]:
        """What was said, and the bytes from the engine; the bundle must be as it always is."""
        only_the_first(self.shelf)
        self.relay.take_received()
        environment: dict[str, Any] = {**self.environment, **more}
        done = self.project.lyra("promote", **environment)
        assert done.code == 0, done.text
        verify_bundle(self.shelf / "1.1.0")
        return done.text, self.relay.take_received()

    def image(self) -> dict[str, Any]:
        """The image as the manifest of 1.1.0 has it."""
        (image,) = json.loads((self.shelf / "1.1.0" / layout.MANIFEST_FILE).read_text())["images"]
        return dict(image)


def test_export_sends_only_layers_missing_in_the_cache(
    tested: Project, shelf: Path, box: sandbox.Sandbox, engine: Engine, tmp_path: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("a classic store saves images whole")
    with relayed(box.socket, tmp_path) as relay:
        own = {**box.environment(), "DOCKER_HOST": relay.address, "XDG_CACHE_HOME": str(tmp_path)}
        exporter = Exporter(tested, shelf, relay, own)
        said, moved = exporter.promote()
        assert WHOLE not in said
        image = exporter.image()
        layers = sum(each["size"] for each in image["layers"])
        assert moved > layers
        reference = image["references"][0]
        known = engine.api.inspect_image(reference)["Id"]
        assert image["manifest_digest"] == known

        said, moved = exporter.promote()
        assert WHOLE not in said
        assert moved < layers / 10, "inspections, BuildKit's progress, a config and a manifest"
        exporter.blobs[-1].unlink()
        _, moved = exporter.promote()
        assert moved < layers / 10, "and one small layer"

        largest = exporter.blobs[0]
        whole = largest.read_bytes()
        largest.unlink()
        largest.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        _, moved = exporter.promote()
        assert moved > len(whole), "a damaged blob is fetched again"
        assert largest.read_bytes() == whole

        engine.api.tag(read_manifest(shelf / "1.0.0").images[0].references[0], *reference.rsplit(":", 1))
        try:
            _, moved = exporter.promote()
        finally:
            engine.api.tag(known, *reference.rsplit(":", 1))
        assert moved > layers, "the tested image is saved, whatever the reference names by now"

        docker = tmp_path / "docker"
        docker.write_text('#!/bin/sh\necho "ERROR: this driver has no such exporter"\nexit 1\n')
        docker.chmod(0o755)
        said, moved = exporter.promote(PATH=f"{tmp_path}:{own['PATH']}")
        assert WHOLE in said
        assert "this driver has no such exporter" in said
        assert moved > layers
        assert exporter.image() == image


def test_page_shows_changes_since_previous_version(tested: Project, shelf: Path) -> None:
    result = tested.lyra("promote")
    assert "needed while it is made" in result.err
    assert " free\n" in result.err
    first, second = ((shelf / version / layout.SUMMARY_FILE).read_text() for version in ("1.0.0", "1.1.0"))
    assert "No earlier bundle was there to compare with" in first
    assert "## What changed since 1.0.0" in second
    assert "| images | web | sha256:" in second
    shown = tested.lyra("diff", "1.0.0", "1.1.0")
    assert "images  web" in shown.out
    assert "layers  web: sha256:" in shown.out
    assert "no difference" in tested.lyra("diff", "1.1.0", str(shelf / "1.1.0")).out
    assert tested.lyra("diff", "1.0.0", "7.0.0").code == 2
    (shelf / "1.1.0" / layout.TESTS_JSON_FILE).unlink()
    assert tested.lyra("diff", "1.0.0", "1.1.0").code == 6


def test_rehearsal_runs_checks_and_leaves_nothing(tested: Project, shelf: Path) -> None:
    (state,) = tested.state.iterdir()
    name = sandbox_paths(state / "rehearsal").name
    planned = tested.lyra("bundle.rehearse", "1.0.0", "--dry-run", "--json")
    assert json.loads(planned.out)["suite"] == "bookworm"
    assert json.loads(planned.out)["filled_in"] == ["TOKEN", "WEB_HTTP_PUBLISH", "WEB_KEY_FILE"]
    assert not (state / "rehearsal").exists()
    tested.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good evening"')
    try:
        failed = tested.lyra("bundle.rehearse", "1.0.0", "--json")
    finally:
        tested.replace(".lyra.toml", 'body = "Good evening"', 'body = "Good morning"')
    assert failed.code == 5, failed.text
    said = json.loads(failed.out)
    assert said["engine"].startswith("20.10.")
    assert said["store"] == "classic"
    assert {check["name"]: check["outcome"] for check in said["checks"]} == {
        "the page is there": "passed",
        "the config is in place": "failed",
        "the secret is in place, for the service alone": "passed",
        "the volume can be written": "passed",
    }
    assert "the checks are those of the tree as it is now" in failed.err
    script = shelf / "1.0.0" / layout.RECEIVE_SCRIPT
    text = script.read_text()
    try:
        script.write_text(text.replace("min_engine=20.10\n", "min_engine=99.0\n"))
        assert tested.lyra("bundle.rehearse", "1.0.0").code == 6, "it is not as promoted"
    finally:
        script.write_text(text)
    assert not (state / "rehearsal").exists()
    assert not Path("/run", name).exists()
    assert processes_with(name) == []
