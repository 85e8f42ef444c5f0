"""The levels of `clean`, its proof, and `doctor`, in a project whose private engine is its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from lyra_tasks.cleanup import facts, plan, run
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox.layout import sandbox_paths
from lyra_tasks.engine.workspace import open_workspace
from lyra_tasks.errors import LockedError
from lyra_tasks.locks import finish_run, start_run
from lyra_tasks.records.cleanup import CleanupReport
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, tiny_project
from tests.faults import no_traceback, refused


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Iterator[Project]:
    """The tiny project, which makes a private engine where it needs one."""
    project = tiny_project(tmp_path_factory.mktemp("own"), busybox, cache, None)
    project.replace(
        ".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[resources]\ncache = "1m"\n\n[images.web]'
    )
    (project.root / "app" / "www" / "big").write_bytes(bytes(range(256)) * 12_000)
    project.commit("a private engine")
    yield project
    sandbox.shut_down_sandbox(state_of(project), purge=True)


def state_of(project: Project) -> Path:
    (state,) = project.state.iterdir()
    return state


def api(project: Project) -> docker.APIClient:
    box = sandbox.find_sandbox(state_of(project))
    assert box is not None, "the private engine does not run"
    return docker.APIClient(base_url=f"unix://{box.socket}", timeout=30)


def cache_of(project: Project) -> int:
    return sum(each["Size"] for each in api(project).df()["BuildCache"] or [] if not each["Shared"])


def last_cleared(project: Project) -> str:
    """The last run that left nothing of ours in the engine."""
    return next(entry.run for _, entry in Journal(state_of(project) / "journal.jsonl").find_backwards("cleared"))


def proof_of(project: Project, said: str) -> CleanupReport:
    """The proof that a `clean` names at its end."""
    return CleanupReport.model_validate_json(Path(said.rpartition("proof: ")[2].strip()).read_bytes())


def test_every_build_keeps_the_builder_cache_within_its_budget(own: Project) -> None:
    built = own.lyra("engine.up", "build", "test")
    assert built.code == 0, built.text
    cached = [(each["Size"], each["Shared"], each["Description"]) for each in api(own).df()["BuildCache"] or []]
    assert sum(size for size, shared, _ in cached if not shared) <= 1 << 20, cached


def test_a_dry_run_lists_each_level_and_does_nothing(own: Project) -> None:
    objects, cache, everything = (own.lyra("clean", *more, "--dry-run").out for more in ((), ("--cache",), ("--all",)))
    assert "would remove" in objects
    assert "  image tiny/web:" in objects
    assert "of image layers and" in objects
    assert "the builder cache" not in objects.splitlines()[0]
    assert "the builder cache" in cache.splitlines()[0]
    assert ".lyra/ and the sandbox's data" in everything.splitlines()[0]
    document = json.loads(own.lyra("clean", "--dry-run", "--json").out)
    assert {each["kind"] for each in document["objects"]} == {"image"}
    assert api(own).images(), "nothing was removed"


def test_an_engine_that_is_started_only_to_be_looked_through_does_not_stay(own: Project) -> None:
    assert own.lyra("engine.down").code == 0
    for words in (("clean", "--dry-run"), ("clean", "--all"), ("clean", "--gone", "--dry-run")):
        looked = own.lyra(*words)
        assert looked.code == (2 if words[1] == "--all" else 0), looked.text
        assert "starting" not in looked.out and sandbox.find_sandbox(state_of(own)) is None, words
    assert own.lyra("engine.up").code == 0
    assert any("tiny/web" in tag for each in api(own).images() for tag in each["RepoTags"] or [])


def test_clean_proves_what_was_there_before_and_after(own: Project) -> None:
    cleaned = own.lyra("clean", "--cache")
    assert cleaned.code == 0, cleaned.text
    assert "the engine says: image layers" in cleaned.out
    proof = proof_of(own, cleaned.out)
    assert proof.clean and proof.leftovers == []
    assert any(name.startswith("tiny/web:") for name in proof.before.images)
    assert not any(name.startswith("tiny") for name in proof.after.images)
    assert {each.kind for each in proof.removed} == {"image"}
    assert proof.before.interfaces and proof.before.processes, "the private engine is there before"
    assert proof.before.interfaces == proof.after.interfaces, "engine.up started it: only engine.down or --all end it"
    assert cache_of(own) == 0
    assert proof.after.cache_size == 0
    assert last_cleared(own) == proof.run, "so that the next one reads the journal from there on"


def test_residue_is_named_with_what_removes_it(own: Project) -> None:
    assert own.lyra("build").code == 0
    (image,) = [each for each in api(own).images() if any(tag.startswith("tiny/web") for tag in each["RepoTags"] or [])]
    engine: Any = api(own)
    stranger = engine.create_container_from_config({"Image": image["Id"], "HostConfig": {}}, "stranger")["Id"]
    try:
        left = own.lyra("clean")
        reference = next(tag for tag in image["RepoTags"])
        refused(
            left, 7, f"image {reference}: the container stranger uses it, which is not ours", f"docker rmi {reference}"
        )
        assert not proof_of(own, left.out).clean
        assert last_cleared(own) != proof_of(own, left.out).run
        assert api(own).inspect_container(stranger)
    finally:
        api(own).remove_container(stranger)
    own.clean()
    assert not [each for each in api(own).images() if any("tiny" in tag for tag in each["RepoTags"] or [])]


def test_a_run_of_another_terminal_stays_and_is_named(own: Project) -> None:
    assert own.lyra("build").code == 0
    live = state_of(own) / "live"
    handle = start_run(live, "20260101t000000-abcdef")
    try:
        for words, said in (
            (("clean",), "object(s) stay for it"),
            (("clean", "--all", "--yes"), "would take everything"),
        ):
            refused(own.lyra(*words), 3, "a run of this checkout is going on in another process (pid ", said)
        doctor = own.lyra("doctor")
        assert "held by runs that are going on: 20260101t000000-abcdef" in doctor.out
    finally:
        finish_run(live, "20260101t000000-abcdef", handle)


def test_a_run_that_begins_while_somebody_thinks_about_the_answer_is_not_touched(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    work = open_workspace(load_config(own.root))
    found, engine = facts.collect_cleanup_facts(work)
    planned = plan.plan_cleanup(found, "all")
    assert planned.objects and planned.stop_sandboxes
    handle = start_run(work.paths.run_locks, "20260101t000000-abcdef")
    try:
        with pytest.raises(LockedError, match="begun meanwhile"):
            run.run_cleanup(planned, work, engine)
    finally:
        finish_run(work.paths.run_locks, "20260101t000000-abcdef", handle)
    assert api(own).images() and (own.root / ".lyra").is_dir()
    own.clean()


def test_what_killed_runs_left_on_disk_goes(own: Project) -> None:
    staging = own.root / "promotion" / "tiny" / ".staging-1.0.0"
    mounts = own.root / ".lyra" / "runs" / "20260101t000000-abcdef" / "mounts"
    aside = state_of(own) / "dev" / ".dev.json.abcd1234"
    for folder in (staging, mounts, aside.parent):
        folder.mkdir(parents=True)
    aside.write_text("half")
    (aside.parent / "dev.json").write_text("{")
    cleaned = own.lyra("clean")
    assert cleaned.code == 0, cleaned.text
    assert "dev.json: not a valid DevLab" in cleaned.err
    assert not any(path.exists() for path in (staging, mounts, aside))
    assert {str(staging), str(mounts)} < set(proof_of(own, cleaned.out).before.temporary_files)
    assert mounts.parent.is_dir(), "the run's own folder stays"


def findings(project: Project, code: int = 0) -> dict[str, dict[str, Any]]:
    """What doctor found, by name; the worst of each."""
    outcome = project.lyra("doctor", "--json")
    assert outcome.code == code, outcome.text
    assert no_traceback(outcome.text)
    found: dict[str, dict[str, Any]] = {}
    for each in json.loads(outcome.out):
        if found.get(each["what"], {}).get("state") in {None, "ok"}:
            found[each["what"]] = each
        assert each["state"] == "ok" or each["fix"], f"no fix for {each}"
    return found


def test_doctor_looks_at_everything_of_a_sound_project(own: Project) -> None:
    found = findings(own)
    every = {
        "config",
        "git",
        "engine",
        "API",
        "store",
        "known faults",
        "buildx",
        "sandbox",
        "disk",
        "clock",
        "leftovers",
    }
    assert every | {"locks"} == found.keys()
    assert {name for name in every if found[name]["state"] == "fault"} == set()


def test_doctor_names_what_is_wrong(own: Project, tmp_path: Path) -> None:
    (own.root / ".lyra.lock.toml").write_text("schema = [")
    dead = state_of(own) / "running"
    dead.mkdir(exist_ok=True)
    (dead / "20260101t000000-abcdef.lock").write_text("")
    journal = state_of(own) / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"word"', '"Word"', 1))
    try:
        found = findings(own, code=3)
    finally:
        (own.root / ".lyra.lock.toml").unlink()
    assert found["locks"]["state"] == "fault"
    assert "1 run(s) were killed" in found["leftovers"]["said"]
    assert "edited" in found["journal"]["said"]
    assert own.lyra("clean").code == 0
    assert not list(dead.iterdir())


def test_doctor_works_where_there_is_nothing(own: Project, tmp_path: Path) -> None:
    nothing = {
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
        "PATH": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "s"),
    }
    found = findings(replace(own, root=tmp_path, environment=own.environment | nothing), code=3)
    assert {name for name, each in found.items() if each["state"] == "fault"} == {"config", "git", "engine"}
    assert not list(tmp_path.iterdir()), "it has only looked"


def test_everything_is_gone_after_all_but_source_bundles_and_records(
    own: Project, traces_of: Callable[[], tuple[str, ...]]
) -> None:
    assert own.lyra("build", "test", "promote").code == 0
    refused(own.lyra("clean", "--all"), 2, "not confirmed", "--yes")
    assert (own.root / ".lyra").is_dir()
    cleaned = own.lyra("clean", "--all", "--yes")
    assert cleaned.code == 0, cleaned.text
    assert not (own.root / ".lyra").exists()
    assert not (state_of(own) / "sandbox").exists()
    assert len(own.bundles()) == 1
    assert own.git("status", "--porcelain", "--", "app", ".lyra.toml") == ""
    proof = proof_of(own, cleaned.out)
    assert proof.clean and proof.sandbox_stopped
    assert proof.before.interfaces and proof.after.interfaces == []
    assert proof.before.processes and proof.after.processes == {}
    assert traces_of() == ()
    again = own.lyra("clean")
    assert again.code == 0 and "no engine holds anything" in again.out, again.text
    shutil.rmtree(own.root / "promotion")


def test_a_work_folder_that_cannot_be_deleted_is_residue(own: Project) -> None:
    busy = own.root / ".lyra" / "busy"
    busy.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=True)
    try:
        stuck = own.lyra("clean", "--all", "--yes")
    finally:
        subprocess.run(["umount", str(busy)], check=True)
    refused(stuck, 7, f"folder {busy.parent}: still there; rm -r {busy.parent}")
    assert own.lyra("clean", "--all", "--yes").code == 0
    assert not busy.parent.exists()


@pytest.fixture
def traces_of(own: Project) -> Callable[[], tuple[str, ...]]:
    """Looks for processes, mounts and links of the private engine without asking Lyra."""
    name = sandbox_paths(state_of(own)).name

    def look() -> tuple[str, ...]:
        said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        said += Path("/proc/self/mounts").read_text()
        return tuple(line for line in said.splitlines() if name in line)

    return look
