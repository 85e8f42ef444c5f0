"""A killed run leaves nothing: its reaper cleans up, or the next command if the reaper is killed, too."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.engine.objects import containers, lifeline
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.objects.inventory import LABEL_NONCE
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.engine.objects.removal import RemovalResult
from lyra_tasks.locks import new_run_id
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours
from tests.faults import reapers

KILLS = int(os.environ.get("LYRA_TEST_KILLS", "6"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))


def lab_objects(engine: Engine) -> list[str]:
    """Return the names of all containers, networks and volumes of labs."""
    api = engine.api
    names = [container["Names"][0] for container in api.containers(all=True)]
    names += [network["Name"] for network in api.networks()]
    names += [volume["Name"] for volume in api.volumes()["Volumes"] or []]
    return [name for name in names if "lyra-" in name]


def measure_startup_seconds(project: Project, engine: Engine) -> float:
    """Return how long a run takes to create its first service container; kill it then."""
    started_at = time.monotonic()
    running = project.start("test")
    assert wait_until(lambda: any(name.endswith("-web") for name in lab_objects(engine)), 120)
    seconds = time.monotonic() - started_at
    running.kill()
    running.communicate()
    assert wait_until(lambda: not lab_objects(engine) and not reapers(project), 60)
    return seconds


@pytest.fixture(scope="module")
def slow(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Build the tiny project with a last check that takes long."""
    project = make_tiny()
    project.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert project.lyra("build").code == 0
    yield project
    project.clean()


@pytest.mark.thorough
def test_run_killed_at_any_moment_leaves_nothing(slow: Project, engine: Engine) -> None:
    moments = random.Random(SEED)
    hits, startup = 0, measure_startup_seconds(slow, engine)
    for number in range(KILLS):
        running = slow.start("test")
        # from the first import to the checks, scaled to the speed of this machine
        time.sleep(moments.uniform(0.3, 1.0) * startup * 1.3)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        hits += bool(lab_objects(engine))
        assert wait_until(lambda: not lab_objects(engine) and not reapers(slow), 20), (
            f"seed {SEED}, kill {number}: {lab_objects(engine)}"
        )
    assert hits, "no kill came while any object existed"
    (journal,) = slow.state.glob("*/journal.jsonl")
    assert Journal(journal).find_problems() == []
    assert any(entry.event == "orphans-removed" and entry.data["objects"] for entry in Journal(journal).entries())


def test_other_command_keeps_an_active_run_and_cleans_up_if_its_reaper_is_killed(slow: Project, engine: Engine) -> None:
    running = slow.start("test")
    try:
        assert wait_until(lambda: any(name.endswith("-web") for name in lab_objects(engine)), 30)
        before = lab_objects(engine)
        result = slow.lyra("build")
        assert result.code == 0, result.text
        assert "Removed" not in result.err
        assert set(before) <= set(lab_objects(engine)), "the run of another process is active"
        for pid in reapers(slow):
            os.kill(pid, signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    time.sleep(1)
    assert lab_objects(engine), "something else cleaned up"
    result = slow.lyra("build")
    assert result.code == 0, result.text
    assert "Removed leftovers of a killed run" in result.err
    assert lab_objects(engine) == []


def test_finished_run_leaves_no_lock_and_no_reaper(slow: Project) -> None:
    slow.replace(".lyra.toml", "sleep 50; ", "")
    try:
        assert slow.lyra("test").code == 0
    finally:
        slow.replace(".lyra.toml", 'exec = "echo kept', 'exec = "sleep 50; echo kept')
    assert wait_until(lambda: not reapers(slow), 5)
    assert [path for directory in slow.state.glob("*/running") for path in Path(directory).iterdir()] == []


@pytest.fixture
def dead(tmp_path: Path, engine: Engine) -> Iterator[Owner]:
    """A run that was killed with its reaper and left a network."""
    owner = Owner(Journal(tmp_path / "journal.jsonl"), new_run_id(), "tiny-1")
    lifeline.run_lock_path(tmp_path, owner.run).parent.mkdir()
    lifeline.run_lock_path(tmp_path, owner.run).touch()
    containers.create_networks(engine, owner, {f"lyra-{owner.run}-inner": {"Internal": True}})
    yield owner
    engine.client.networks.prune({"label": LABEL_NONCE})


def test_orphan_in_foreign_use_stays_until_free(dead: Owner, engine: Engine, tmp_path: Path) -> None:
    network = f"lyra-{dead.run}-inner"
    image = ensure_holder_image(engine, dead)
    foreign = engine.client.containers.run(image, [HOLD_PATH], network=network, detach=True)
    try:
        cleanup = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    finally:
        foreign.remove(force=True)
    assert cleanup.removed == []
    assert [(item.name, "endpoint" in reason) for item, reason in cleanup.failed.items()] == [(network, True)]
    again = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    assert ([item.name for item in again.removed], again.failed) == ([network], {})
    assert lifeline.list_crashed_runs(tmp_path) == []
    engine.api.remove_image(image)


def test_lock_removed_during_cleanup_is_no_error(
    dead: Owner, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lifeline.run_lock_path(tmp_path, "z")
    other.touch()

    remove_run_orphans = lifeline.remove_run_orphans

    def unlink_and_remove(engine: Engine, owner: Owner, path: Path) -> RemovalResult:
        other.unlink()
        return remove_run_orphans(engine, owner, path)

    monkeypatch.setattr(lifeline, "remove_run_orphans", unlink_and_remove)
    cleanup = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    assert [item.name for item in cleanup.removed] == [f"lyra-{dead.run}-inner"]


class Killed(Owner):
    """A run that is killed before it can record the images that it created."""

    def record_created_images(self, engine: Engine, ids: dict[str, str], *, foreign: bool = False) -> None:
        raise KeyboardInterrupt


def test_image_without_recorded_id_is_cleaned(tiny: Project, engine: Engine) -> None:
    tiny.clean()
    (journal,) = tiny.state.glob("*/journal.jsonl")
    with pytest.raises(KeyboardInterrupt):
        ensure_holder_image(engine, Killed(Journal(journal), "killed", journal.parent.name))
    assert [name for name in ours(engine) if name.startswith(f"{journal.parent.name}/holder:")]
    tiny.clean()
    assert [name for name in ours(engine) if name.startswith(f"{journal.parent.name}/")] == []
