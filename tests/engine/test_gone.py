"""`clean --gone` removes the leftovers of deleted checkouts and nothing else."""

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
    """An existing checkout, and one that was deleted while its services ran."""

    here: Project
    gone: Path
    state: Path
    leftovers: list[str]
    shared: str


def state_of(project: Project, root: Path) -> Path:
    """Return the state directory of the checkout at `root`."""
    (record,) = (path for path in project.state.glob("*/checkout.json") if str(root) in path.read_text())
    return record.parent


@pytest.fixture(scope="module")
def pair(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Pair]:
    here = make_tiny()
    root = here.root.parent / "places" / "gone"
    root.parent.mkdir()
    (root.parent / "neighbour").touch()
    shutil.copytree(here.root, root, symlinks=True)
    gone = replace(here, root=root)
    result = here.lyra("build")
    assert result.code == 0, result.text
    own = ours(engine)
    result = gone.lyra("build", "test", "--keep-running")
    assert result.code == 0, result.text
    leftovers = [name for name in ours(engine) if name not in own]
    assert any("-web" in name for name in leftovers), "its services run"
    state = state_of(here, root)
    shutil.rmtree(root)
    yield Pair(here, root, state, leftovers, next(name for name in own if name.startswith("tiny/web:")))
    cleaned = here.lyra("clean", "--gone", "--yes")
    here.clean()
    assert cleaned.code == 0, cleaned.text


def test_doctor_suggests_clean_gone(pair: Pair) -> None:
    diagnoses = {diagnosis["subject"]: diagnosis for diagnosis in json.loads(pair.here.lyra("doctor", "--json").out)}
    assert f"{pair.gone} was deleted, leftovers: container " in diagnoses["leftovers"]["message"]
    assert "clean --gone" in diagnoses["leftovers"]["fix"]


def test_clean_gone_lists_and_requires_confirmation(pair: Pair, engine: Engine) -> None:
    before = sorted(ours(engine))
    listed = pair.here.lyra("clean", "--gone", "--dry-run")
    assert listed.code == 0, listed.text
    assert f"{pair.gone} is missing; leftovers: " in listed.out
    assert "its journal, records and evidence" in listed.out
    for name in pair.leftovers:
        assert f" {name}" in listed.out
    document = json.loads(pair.here.lyra("clean", "--gone", "--dry-run", "--json").out)
    (checkout,) = document["checkouts"]
    assert (checkout["root"], checkout["states"], checkout["unmounted_reason"]) == (
        str(pair.gone),
        [str(pair.state)],
        "",
    )
    assert list(checkout["kept"]) == [pair.shared], "the existing checkout created it, too"
    refused(pair.here.lyra("clean", "--gone"), 2, "`lyra clean --gone` was not confirmed")
    refused(pair.here.lyra("clean", "--gone", "--all", "--yes"), 2, "`lyra clean --gone` cleans other checkouts")
    assert sorted(ours(engine)) == before and pair.state.is_dir()


def test_clean_gone_warns_of_possibly_unmounted_disk(pair: Pair) -> None:
    neighbour = pair.gone.parent / "neighbour"
    neighbour.unlink()
    listed = pair.here.lyra("clean", "--gone", "--dry-run")
    neighbour.touch()
    assert f"it may be on an unmounted disk: {pair.gone.parent} is empty, like an unused mount point" in listed.out


def test_clean_gone_skips_active_runs_and_other_engines(pair: Pair, engine: Engine) -> None:
    before = sorted(ours(engine))
    handle = start_run(pair.state / "live", "r-alive")
    try:
        result = pair.here.lyra("clean", "--gone", "--yes")
    finally:
        finish_run(pair.state / "live", "r-alive", handle)
    assert result.code == 0, result.text
    assert f"{pair.gone} is missing; skipped: A run of this checkout is active" in result.text
    assert sorted(ours(engine)) == before

    journal = Journal(pair.state / "journal.jsonl")
    image = {"kind": "image", "name": "tiny/far:1", "id": "sha256:1", "engine": "another-engine"}
    journal.append("r1", "created", **image)
    (checkout,) = json.loads(pair.here.lyra("clean", "--gone", "--dry-run", "--json").out)["checkouts"]
    assert checkout["states"] == [] and "another-engine" in checkout["kept_reason"], "only its journal names the image"
    journal.append("r1", "removed", **image)


def test_clean_gone_reports_objects_in_foreign_use(pair: Pair, engine: Engine) -> None:
    own = sorted(name for name in ours(engine) if name not in pair.leftovers)
    volumes = [volume["Name"] for volume in engine.api.volumes()["Volumes"]]
    volume = next(name for name in volumes if name in pair.leftovers)
    host = engine.api.create_host_config(binds=[f"{volume}:/v"])
    foreign = engine.api.create_container(pair.shared, "true", name="foreign", host_config=host)["Id"]
    try:
        refused(pair.here.lyra("clean", "--gone", "--yes"), 7, f"volume {volume}: in use by container foreign")
        assert pair.state.is_dir(), "the owner of the volume is still recorded"
    finally:
        engine.api.remove_container(foreign, force=True)

    cleaned = pair.here.lyra("clean", "--gone", "--yes")
    assert cleaned.code == 0, cleaned.text
    assert sorted(ours(engine)) == own
    assert not pair.state.exists()
    report = CleanupReport.model_validate_json(Path(cleaned.out.rpartition("report: ")[2].strip()).read_bytes())
    assert [item.name for item in report.removed] == [volume]
    assert [(deleted.root, deleted.state) for deleted in report.deleted_states] == [(str(pair.gone), str(pair.state))]
    assert volume in report.before.volumes and volume not in report.after.volumes
    journals = map(Journal, pair.here.state.glob("*/journal.jsonl"))
    events = [entry.event for journal in journals for entry in journal.entries()]
    assert events.count("states-deleted") == 1
    again = pair.here.lyra("clean", "--gone")
    assert (again.code, again.out.strip()) == (0, "no leftovers of missing checkouts")


def test_clean_gone_removes_private_engine(pair: Pair) -> None:
    root = pair.gone.parent / "sandboxed"
    shutil.copytree(pair.here.root, root, symlinks=True)
    sandboxed = replace(pair.here, root=root)
    sandboxed.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[images.web]')
    started = sandboxed.lyra("engine.up", "build")
    assert started.code == 0, started.text
    state = state_of(pair.here, root)
    shutil.rmtree(root)
    box = sandbox.find_sandbox(state)
    assert box is not None
    try:
        doctor = pair.here.lyra("doctor").text
        assert f"{root} was deleted, leftovers: private engine" in " ".join(doctor.split())
        cleaned = pair.here.lyra("clean", "--gone", "--yes")
        assert cleaned.code == 0, cleaned.text
        assert "its private engine with its data" in cleaned.text
        assert sandbox.find_sandbox(state) is None and not state.exists() and not box.socket.exists()
    finally:
        sandbox.shut_down_sandbox(state, purge=True)
