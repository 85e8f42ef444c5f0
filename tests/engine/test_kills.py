"""A run that is killed leaves nothing: a reaper sees to it, and where that is killed too, the next word does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.engine.objects import containers, lifeline
from lyra_tasks.engine.objects.holder import ensure_holder_image
from lyra_tasks.engine.objects.ownership import LABEL_NONCE, Owner
from lyra_tasks.locks import new_run_id
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours

KILLS = int(os.environ.get("LYRA_TEST_KILLS", "6"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))
Reap = Callable[[Engine, Owner, Path], lifeline.OrphanCleanup]


def left(engine: Engine) -> list[str]:
    """Containers, networks and volumes of any lab."""
    api = engine.api
    names = [container["Names"][0] for container in api.containers(all=True)]
    names += [network["Name"] for network in api.networks()]
    names += [volume["Name"] for volume in api.volumes()["Volumes"] or []]
    return [name for name in names if "lyra-" in name]


def reapers(project: Project) -> list[int]:
    """The process ids of this project's reapers; others may be at work on the machine."""
    pattern = f"lyra_tasks.engine.objects.reaper {project.state}/"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def started(tiny: Project) -> subprocess.Popen[str]:
    """A test run whose last check takes long."""
    return tiny.start("test")


def seconds_until_it_stands(project: Project, engine: Engine) -> float:
    """How long a run takes to the first container of a service; it is killed then."""
    began = time.monotonic()
    running = started(project)
    assert wait_until(lambda: any(name.endswith("-web") for name in left(engine)), 120)
    seconds = time.monotonic() - began
    running.kill()
    running.communicate()
    assert wait_until(lambda: not left(engine) and not reapers(project), 60)
    return seconds


@pytest.fixture
def slow(tiny: Project) -> Project:
    tiny.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert tiny.lyra("build").code == 0
    return tiny


def test_a_run_killed_at_any_moment_leaves_nothing_without_any_further_word(slow: Project, engine: Engine) -> None:
    moments = random.Random(SEED)
    hits, stands = 0, seconds_until_it_stands(slow, engine)
    for number in range(KILLS):
        running = started(slow)
        # from the first import to the checks, however long this machine takes today
        time.sleep(moments.uniform(0.3, 1.0) * stands * 1.3)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        hits += bool(left(engine))
        assert wait_until(lambda: not left(engine) and not reapers(slow), 20), (
            f"seed {SEED}, kill {number}: {left(engine)}"
        )
    assert hits, "no kill came while anything was there, so that nothing was tried"
    (journal,) = slow.state.glob("*/journal.jsonl")
    assert Journal(journal).find_problems() == []
    assert any(entry.event == "reaped" and entry.data["objects"] for entry in Journal(journal).entries())


def test_where_the_reaper_is_killed_too_the_next_word_cleans_up_and_says_so(slow: Project, engine: Engine) -> None:
    running = started(slow)
    assert wait_until(lambda: any(name.endswith("-web") for name in left(engine)), 30)
    for pid in reapers(slow):
        os.kill(pid, signal.SIGKILL)
    running.kill()
    running.communicate()
    time.sleep(1)
    assert left(engine), "something else has cleaned up"
    result = slow.lyra("build")
    assert result.code == 0, result.text
    assert "removed what a run that was killed had left" in result.err
    assert left(engine) == []


def test_a_live_run_of_another_terminal_is_never_touched(slow: Project, engine: Engine) -> None:
    running = started(slow)
    try:
        assert wait_until(lambda: any(name.endswith("-web") for name in left(engine)), 30)
        before = left(engine)
        result = slow.lyra("build")
        assert result.code == 0, result.text
        assert "removed" not in result.err
        assert set(before) <= set(left(engine))
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)


def test_a_run_that_ends_in_order_leaves_neither_lock_nor_reaper(tiny: Project) -> None:
    assert tiny.lyra("build", "test").code == 0
    assert wait_until(lambda: not reapers(tiny), 5)
    assert [path for folder in tiny.state.glob("*/running") for path in Path(folder).iterdir()] == []


@pytest.fixture
def dead(tmp_path: Path, engine: Engine) -> Iterator[Owner]:
    """A run that was killed, as its reaper was, and left a network."""
    owner = Owner(Journal(tmp_path / "journal.jsonl"), new_run_id(), "tiny-1")
    lifeline.run_lock_path(tmp_path, owner.run).parent.mkdir()
    lifeline.run_lock_path(tmp_path, owner.run).touch()
    containers.create_networks(engine, owner, {f"lyra-{owner.run}-inner": {"Internal": True}})
    yield owner
    engine.client.networks.prune({"label": LABEL_NONCE})


def test_what_a_stranger_uses_of_a_killed_run_does_not_hold_up_the_next_word(
    dead: Owner, engine: Engine, tmp_path: Path
) -> None:
    network = f"lyra-{dead.run}-inner"
    image = ensure_holder_image(engine, dead)
    stranger = engine.client.containers.run(image, ["/hold"], network=network, detach=True)
    try:
        swept = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    finally:
        stranger.remove(force=True)
    assert swept.removed == []
    assert [(each.name, "endpoint" in reason) for each, reason in swept.failed.items()] == [(network, True)]
    again = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    assert ([each.name for each in again.removed], again.failed) == ([network], {})
    assert lifeline.list_crashed_runs(tmp_path) == []
    engine.api.remove_image(image)


def test_a_lock_that_a_reaper_takes_away_while_another_is_swept_is_no_fault(
    dead: Owner, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lifeline.run_lock_path(tmp_path, "z")
    other.touch()

    def meanwhile(
        engine: Engine, owner: Owner, path: Path, reap: Reap = lifeline.remove_run_orphans
    ) -> lifeline.OrphanCleanup:
        other.unlink()
        return reap(engine, owner, path)

    monkeypatch.setattr(lifeline, "reap", meanwhile)
    swept = lifeline.remove_orphans(engine, dead.journal, dead.project_id, tmp_path)
    assert [each.name for each in swept.removed] == [f"lyra-{dead.run}-inner"]


class Killed(Owner):
    """A run that ends before it can write down what it has made."""

    def made_images(self, engine: Engine, ids: dict[str, str]) -> None:
        raise KeyboardInterrupt


def test_an_image_whose_maker_was_killed_before_it_knew_the_id_is_cleaned_away(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    (journal,) = tiny.state.glob("*/journal.jsonl")
    with pytest.raises(KeyboardInterrupt):
        ensure_holder_image(engine, Killed(Journal(journal), "killed", journal.parent.name))
    assert [name for name in ours(engine) if "/holder:" in name]
    tiny.clean()
    assert ours(engine) == []
