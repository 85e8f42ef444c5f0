"""`clean --gone`: what checkouts left whose folder is not there any more, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.locks import finish_run, start_run
from lyra_tasks.records.cleanup import CleanupReport
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours
from tests.faults import refused


@dataclass(frozen=True)
class Pair:
    """A checkout that is there, and one that was deleted while its services ran."""

    here: Project
    gone: Path
    state: Path
    left: list[str]
    shared: str


@pytest.fixture(scope="module")
def pair(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Pair]:
    here = make_tiny()
    root = here.root.parent / "places" / "gone"
    root.parent.mkdir()
    (root.parent / "neighbour").touch()
    shutil.copytree(here.root, root, symlinks=True)
    gone = replace(here, root=root)
    built = here.lyra("build")
    assert built.code == 0, built.text
    own = ours(engine)
    ran = gone.lyra("build", "test", "--keep-running")
    assert ran.code == 0, ran.text
    (state,) = (each.parent for each in here.state.glob("*/checkout.json") if str(root) in each.read_text())
    left = [each for each in ours(engine) if each not in own]
    assert any("-web" in each for each in left), "its services run"
    shutil.rmtree(root)
    yield Pair(here, root, state, left, next(each for each in own if each.startswith("tiny/web:")))
    cleaned = here.lyra("clean", "--gone", "--yes")
    here.clean()
    assert cleaned.code == 0, cleaned.text


def test_doctor_names_the_word_that_cleans_it(pair: Pair) -> None:
    found = {each["what"]: each for each in json.loads(pair.here.lyra("doctor", "--json").out)}
    assert f"{pair.gone} is gone, and left container " in found["leftovers"]["said"]
    assert "clean --gone" in found["leftovers"]["fix"]


def test_it_is_listed_and_nothing_goes_before_somebody_agrees(pair: Pair, engine: Engine) -> None:
    before = sorted(ours(engine))
    listed = pair.here.lyra("clean", "--gone", "--dry-run")
    assert listed.code == 0, listed.text
    assert f"{pair.gone} is gone, and left " in listed.out
    assert "its journal, records and evidence" in listed.out
    for name in pair.left:
        assert f" {name}" in listed.out
    document = json.loads(pair.here.lyra("clean", "--gone", "--dry-run", "--json").out)
    (checkout,) = document["checkouts"]
    assert (checkout["root"], checkout["states"], checkout["doubt"]) == (str(pair.gone), [str(pair.state)], "")
    assert list(checkout["stays"]) == [pair.shared], "the checkout that is there made it, too"
    refused(pair.here.lyra("clean", "--gone"), 2, "`clean --gone` was not confirmed")
    refused(pair.here.lyra("clean", "--gone", "--all", "--yes"), 2, "`clean --gone` cleans other checkouts")
    assert sorted(ours(engine)) == before and pair.state.is_dir()


def test_a_folder_whose_disk_may_not_be_mounted_is_told_so(pair: Pair) -> None:
    neighbour = pair.gone.parent / "neighbour"
    neighbour.unlink()
    listed = pair.here.lyra("clean", "--gone", "--dry-run")
    neighbour.touch()
    assert f"it may only be out of reach: {pair.gone.parent} is empty, as where a disk is not mounted" in listed.out


def test_a_run_that_is_going_on_and_an_engine_out_of_reach_keep_what_is_needed(pair: Pair, engine: Engine) -> None:
    before = sorted(ours(engine))
    handle = start_run(pair.state / "live", "r-alive")
    try:
        alone = pair.here.lyra("clean", "--gone", "--yes")
    finally:
        finish_run(pair.state / "live", "r-alive", handle)
    assert alone.code == 0, alone.text
    assert f"{pair.gone} is gone, and is left alone: a run of this checkout is going on" in alone.text
    assert sorted(ours(engine)) == before

    journal = Journal(pair.state / "journal.jsonl")
    made = {"kind": "image", "name": "tiny/far:1", "id": "sha256:1", "engine": "another-engine"}
    journal.append("r1", "made", **made)
    listed = json.loads(pair.here.lyra("clean", "--gone", "--dry-run", "--json").out)["checkouts"][0]
    assert listed["states"] == [] and "another-engine" in listed["keeps"], "its journal alone knows what is there"
    journal.append("r1", "removed", **made)


def test_what_a_stranger_uses_is_residue_and_a_second_time_all_is_gone(pair: Pair, engine: Engine) -> None:
    own = sorted(each for each in ours(engine) if each not in pair.left)
    volume = next(each["Name"] for each in engine.api.volumes()["Volumes"] if each["Name"] in pair.left)
    host = engine.api.create_host_config(binds=[f"{volume}:/v"])
    stranger = engine.api.create_container(pair.shared, "true", name="stranger", host_config=host)["Id"]
    try:
        refused(
            pair.here.lyra("clean", "--gone", "--yes"),
            7,
            f"volume {volume}: the container stranger uses it",
            "stranger",
        )
        assert pair.state.is_dir(), "who owns the volume is still written down"
    finally:
        engine.api.remove_container(stranger, force=True)

    cleaned = pair.here.lyra("clean", "--gone", "--yes")
    assert cleaned.code == 0, cleaned.text
    assert sorted(ours(engine)) == own
    assert not pair.state.exists()
    proof = CleanupReport.model_validate_json(Path(cleaned.out.rpartition("proof: ")[2].strip()).read_bytes())
    assert [each.name for each in proof.removed] == [volume]
    assert [(each.root, each.state) for each in proof.deleted_states] == [(str(pair.gone), str(pair.state))]
    assert volume in proof.before.volumes and volume not in proof.after.volumes
    events = [entry.event for each in pair.here.state.glob("*/journal.jsonl") for entry in Journal(each).entries()]
    assert events.count("forgotten") == 1
    again = pair.here.lyra("clean", "--gone")
    assert (again.code, again.out.strip()) == (0, "no checkout that is gone has left anything")


def test_a_private_engine_of_a_deleted_checkout_is_ended_and_its_data_goes(pair: Pair) -> None:
    root = pair.gone.parent / "private"
    shutil.copytree(pair.here.root, root, symlinks=True)
    private = replace(pair.here, root=root)
    private.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[images.web]')
    started = private.lyra("engine.up", "build")
    assert started.code == 0, started.text
    (state,) = (each.parent for each in pair.here.state.glob("*/checkout.json") if str(root) in each.read_text())
    shutil.rmtree(root)
    box = sandbox.find_sandbox(state)
    assert box is not None
    try:
        doctor = pair.here.lyra("doctor").text
        assert f"{root} is gone, and left a private engine" in " ".join(doctor.split())
        cleaned = pair.here.lyra("clean", "--gone", "--yes")
        assert cleaned.code == 0, cleaned.text
        assert "its private engine with its data" in cleaned.text
        assert sandbox.find_sandbox(state) is None and not state.exists() and not box.socket.exists()
    finally:
        sandbox.shut_down_sandbox(state, purge=True)
