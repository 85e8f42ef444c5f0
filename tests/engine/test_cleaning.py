"""The levels of `clean`, its report, and `doctor`, in a project with its own private engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from lyra_tasks.cleanup import facts, plan, run
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox.layout import SandboxPaths
from lyra_tasks.engine.workspace import open_workspace
from lyra_tasks.errors import LockedError
from lyra_tasks.locks import finish_run, start_run
from lyra_tasks.records.cleanup import CleanupReport
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, tiny_project
from tests.faults import no_traceback, refused
from tests.thorough import keep


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Iterator[Project]:
    """The tiny project with its own private engine."""
    project = tiny_project(tmp_path_factory.mktemp("own"), busybox, cache, None)
    project.replace(
        ".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[resources]\ncache = "1m"\n\n[images.web]'
    )
    (project.root / "app" / "www" / "big").write_bytes(bytes(range(256)) * 12_000)
    project.commit("a private engine")
    yield project
    sandbox.shut_down_sandbox(state_of(project), purge=True)


def state_of(project: Project) -> Path:
    """Return the state directory of a project."""
    (state,) = project.state.iterdir()
    return state


def api(project: Project) -> docker.APIClient:
    """Return a client of the project's engine."""
    box = sandbox.find_sandbox(state_of(project))
    assert box is not None, "the private engine is not running"
    return docker.APIClient(base_url=f"unix://{box.socket}", timeout=30)


def cache_size(project: Project) -> int:
    """Return the size of the build cache."""
    return sum(record["Size"] for record in api(project).df()["BuildCache"] or [] if not record["Shared"])


def last_clearing_run(project: Project) -> str:
    """Return the last run that left no object of ours in the engine."""
    return next(entry.run for _, entry in Journal(state_of(project) / "journal.jsonl").find_backwards("cleared"))


def read_report(output: str) -> CleanupReport:
    """Read the report that `clean` names at the end of its output."""
    return CleanupReport.model_validate_json(Path(output.rpartition("report: ")[2].strip()).read_bytes())


def test_build_keeps_cache_within_limit(own: Project) -> None:
    built = own.lyra("engine.up", "build", "test")
    assert built.code == 0, built.text
    assert cache_size(own) <= 1 << 20, api(own).df()["BuildCache"]


def test_dry_run_lists_each_level(own: Project) -> None:
    objects, cache, everything = (
        own.lyra("clean", *options, "--dry-run").out for options in ((), ("--cache",), ("--all",))
    )
    assert "would remove" in objects
    assert "  image tiny/web:" in objects
    assert "engine disk usage: image layers" in objects
    assert "the build cache" not in objects.splitlines()[0]
    assert "the build cache" in cache.splitlines()[0]
    assert ".lyra/, the evidence of test runs, the private engine's data" in everything.splitlines()[0]
    document = json.loads(own.lyra("clean", "--dry-run", "--json").out)
    assert {item["kind"] for item in document["objects"]} == {"image"}
    assert api(own).images(), "nothing was removed"


def test_dry_run_starts_no_engine(own: Project) -> None:
    tested = own.lyra("build", "test")
    assert tested.code == 0, tested.text
    assert own.lyra("engine.down").code == 0
    release = own.lyra("release", "--version", "9.0.0", "--dry-run")
    assert release.code == 0, release.text
    for command in ("test", "promote"):
        refused(own.lyra(command, "--dry-run"), 3, "No engine is running, and a dry run starts none")
    (own.root / "app" / "www" / "later").touch()
    stale = own.lyra("release", "--version", "9.0.0", "--dry-run")
    (own.root / "app" / "www" / "later").unlink()
    refused(stale, 3, "web was built before its context changed")
    assert sandbox.find_sandbox(state_of(own)) is None


@pytest.mark.parametrize("options", keep(1, [("--all",), ("--dry-run",), ("--gone", "--dry-run")]), ids=" and ".join)
def test_clean_stops_engine_that_it_started(own: Project, options: Sequence[str]) -> None:
    assert own.lyra("engine.down").code == 0
    result = own.lyra("clean", *options)
    assert result.code == (2 if options == ("--all",) else 0), result.text
    assert "starting" not in result.out and sandbox.find_sandbox(state_of(own)) is None


def test_clean_reports_state_before_and_after(own: Project) -> None:
    cleaned = own.lyra("engine.up", "clean", "--cache")
    assert cleaned.code == 0, cleaned.text
    assert "engine disk usage: image layers" in cleaned.out
    report = read_report(cleaned.out)
    assert report.clean and report.leftovers == []
    assert any(name.startswith("tiny/web:") for name in report.before.images)
    assert not any(name.startswith("tiny") for name in report.after.images)
    assert {item.kind for item in report.removed} == {"image"}
    assert report.before.interfaces and report.before.processes, "the private engine is in the report"
    assert report.before.interfaces == report.after.interfaces, (
        "an engine started by engine.up is only stopped by engine.down or --all"
    )
    assert cache_size(own) == 0
    assert report.after.cache_size == 0
    assert last_clearing_run(own) == report.run, "the next cleanup reads the journal from there on"


def test_active_run_of_other_process_is_reported(own: Project) -> None:
    assert own.lyra("build").code == 0
    locks = state_of(own) / "live"
    handle = start_run(locks, "20260101t000000-abcdef")
    try:
        for arguments, reason in (
            (("clean",), "object(s) kept for it"),
            (("clean", "--all", "--yes"), "`--all` would break it"),
        ):
            refused(own.lyra(*arguments), 3, "A run of this checkout is active in another process (pid ", reason)
        doctor = own.lyra("doctor")
        assert "held by active runs: 20260101t000000-abcdef" in doctor.out
    finally:
        finish_run(locks, "20260101t000000-abcdef", handle)


def test_run_started_during_confirmation_stops_clean(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    work = open_workspace(load_config(own.root))
    cleanup_facts, engine = facts.collect_cleanup_facts(work)
    cleanup_plan = plan.plan_cleanup(cleanup_facts, "all")
    assert cleanup_plan.objects and cleanup_plan.stop_sandboxes
    handle = start_run(work.paths.run_locks, "20260101t000000-abcdef")
    try:
        with pytest.raises(LockedError, match="started after this cleanup was planned"):
            run.run_cleanup([cleanup_plan], work, engine)
    finally:
        finish_run(work.paths.run_locks, "20260101t000000-abcdef", handle)
    assert api(own).images() and (own.root / ".lyra").is_dir()


def test_leftover_is_reported_with_fix(own: Project) -> None:
    assert own.lyra("build").code == 0
    (image,) = [
        image for image in api(own).images() if any(tag.startswith("tiny/web") for tag in image["RepoTags"] or [])
    ]
    engine: Any = api(own)
    foreign = engine.create_container_from_config({"Image": image["Id"], "HostConfig": {}}, "foreign")["Id"]
    try:
        result = own.lyra("clean")
        reference = image["RepoTags"][0]
        refused(
            result, 7, f"image {reference}: in use by container foreign, which is not ours", f"docker rmi {reference}"
        )
        assert not read_report(result.out).clean
        assert last_clearing_run(own) != read_report(result.out).run
        assert api(own).inspect_container(foreign)
    finally:
        api(own).remove_container(foreign)
    own.clean()
    assert not any("tiny" in tag for image in api(own).images() for tag in image["RepoTags"] or [])


def test_files_of_killed_runs_are_removed(own: Project) -> None:
    staging = own.root / "promotion" / "tiny" / ".staging-1.0.0"
    mounts = own.root / ".lyra" / "runs" / "20260101t000000-abcdef" / "mounts"
    temporary = state_of(own) / "dev" / ".dev.json.abcd1234"
    for directory in (staging, mounts, temporary.parent):
        directory.mkdir(parents=True)
    temporary.write_text("half")
    (temporary.parent / "dev.json").write_text("{")
    cleaned = own.lyra("clean")
    assert cleaned.code == 0, cleaned.text
    assert "dev.json: not a valid DevLab" in cleaned.err
    assert not any(path.exists() for path in (staging, mounts, temporary))
    assert {str(staging), str(mounts)} < set(read_report(cleaned.out).before.temporary_files)
    assert mounts.parent.is_dir(), "the run's own directory is kept"


def diagnose(project: Project, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return the worst diagnosis of `doctor` for each subject."""
    outcome = project.lyra("doctor", "--json")
    assert outcome.code == code, outcome.text
    assert no_traceback(outcome.text)
    diagnoses: dict[str, dict[str, Any]] = {}
    for diagnosis in json.loads(outcome.out):
        if diagnoses.get(diagnosis["subject"], {}).get("state") in {None, "ok"}:
            diagnoses[diagnosis["subject"]] = diagnosis
        assert diagnosis["state"] == "ok" or diagnosis["fix"], f"no fix for {diagnosis}"
    return diagnoses


def test_doctor_checks_everything(own: Project) -> None:
    diagnoses = diagnose(own)
    engine_subjects = {"engine", "API", "store", "vulnerabilities", "buildx", "sandbox"}
    subjects = {"config", "git", *engine_subjects, "builds", "disk", "storage", "clock", "leftovers"}
    assert subjects | {"locks"} == diagnoses.keys()
    assert {name for name in subjects if diagnoses[name]["state"] == "error"} == set()


def test_doctor_reports_errors(own: Project, tmp_path: Path) -> None:
    (own.root / ".lyra.lock.toml").write_text("schema = [")
    locks = state_of(own) / "running"
    locks.mkdir(exist_ok=True)
    (locks / "20260101t000000-abcdef.lock").write_text("")
    journal = state_of(own) / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"task"', '"Task"', 1))
    try:
        diagnoses = diagnose(own, code=3)
    finally:
        (own.root / ".lyra.lock.toml").unlink()
    assert diagnoses["locks"]["state"] == "error"
    assert "1 run(s) were killed" in diagnoses["leftovers"]["message"]
    assert "edited" in diagnoses["journal"]["message"]
    assert own.lyra("clean").code == 0
    assert not list(locks.iterdir())


def test_doctor_works_without_config_and_engine(own: Project, tmp_path: Path) -> None:
    environment = {
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
        "PATH": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "s"),
    }
    diagnoses = diagnose(replace(own, root=tmp_path, environment=own.environment | environment), code=3)
    errors = {name for name, diagnosis in diagnoses.items() if diagnosis["state"] == "error"}
    assert errors == {"config", "git", "engine"}
    assert not list(tmp_path.iterdir()), "doctor changes nothing"


def test_clean_all_keeps_source_bundles_and_records(own: Project, find_traces: Callable[[], tuple[str, ...]]) -> None:
    assert own.lyra("build", "test", "promote").code == 0
    refused(own.lyra("clean", "--all"), 2, "not confirmed", "--yes")
    assert (own.root / ".lyra").is_dir()
    cleaned = own.lyra("clean", "--all", "--yes")
    assert cleaned.code == 0, cleaned.text
    assert not (own.root / ".lyra").exists()
    assert not (state_of(own) / "sandbox").exists() and not (state_of(own) / "evidence").exists()
    assert len(own.bundles()) == 1
    assert own.git("status", "--porcelain", "--", "app", ".lyra.toml") == ""
    report = read_report(cleaned.out)
    assert report.clean and report.sandbox_stopped
    assert report.before.interfaces and report.after.interfaces == []
    assert report.before.processes and report.after.processes == {}
    assert find_traces() == ()
    again = own.lyra("clean")
    assert again.code == 0 and "0 object(s) removed; nothing is left" in again.out, again.text
    shutil.rmtree(own.root / "promotion")


def test_undeletable_work_directory_is_reported(own: Project) -> None:
    busy = own.root / ".lyra" / "busy"
    busy.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=True)
    try:
        stuck = own.lyra("clean", "--all", "--yes")
    finally:
        subprocess.run(["umount", str(busy)], check=True)
    refused(stuck, 7, f"directory {busy.parent}: still exists; rm -r {busy.parent}")
    assert own.lyra("clean", "--all", "--yes").code == 0
    assert not busy.parent.exists()


@pytest.fixture
def find_traces(own: Project) -> Callable[[], tuple[str, ...]]:
    """Finds processes, mounts and links of the private engine independently of Lyra."""
    name = SandboxPaths(state_of(own)).name

    def find() -> tuple[str, ...]:
        text = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        text += Path("/proc/self/mounts").read_text()
        return tuple(line for line in text.splitlines() if name in line)

    return find
