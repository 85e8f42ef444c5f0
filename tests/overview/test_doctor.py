from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.engine.client.facts import EngineFacts, find_advisories
from lyra_tasks.engine.workspace import open_workspace
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.overview import doctor
from lyra_tasks.overview.doctor import (
    Disk,
    DoctorFacts,
    SandboxFacts,
    diagnose,
    diagnose_disk,
    require_no_errors,
)
from lyra_tasks.overview.doctor_facts import collect_doctor_facts, warn_about_low_disks
from lyra_tasks.results.overview import Diagnosis

ENGINE = EngineFacts("id", "28.5.1", (1, 51), "containerd", 4, 8 * 10**9, "linux/amd64", sandboxed=False)
HEALTHY = DoctorFacts(
    config=".lyra.toml: tiny", engine=ENGINE, components={"Engine": "28.5.1", "runc": "1.3.3"}, buildx="0.29.1"
)
GB = 10**9


def diagnosis_of(facts: DoctorFacts, subject: str) -> Diagnosis:
    (diagnosis,) = [diagnosis for diagnosis in diagnose(facts) if diagnosis.subject == subject]
    return diagnosis


def changed(**values: object) -> DoctorFacts:
    return DoctorFacts(**{**vars(HEALTHY), **values})


def test_doctor_finds_nothing_wrong() -> None:
    assert {diagnosis.state for diagnosis in diagnose(HEALTHY)} == {"ok"}
    require_no_errors(diagnose(HEALTHY))


@pytest.mark.parametrize(
    ("subject", "state", "values"),
    [
        ("config", "error", {"config": PreconditionError("no file", hint="write it")}),
        ("git", "error", {"git": PreconditionError("git is missing", hint="install it")}),
        ("engine", "error", {"engine": EngineUnavailableError("none", hint="start it")}),
        ("API", "warning", {"engine": EngineFacts("id", "20.10.24", (1, 41), "classic", 1, 1, "linux/amd64", False)}),
        ("limits", "error", {"engine": replace(ENGINE, is_rootless=True, missing_limits=("memory", "CPUs"))}),
        ("limits", "error", {"engine": replace(ENGINE, missing_limits=("processes",))}),
        ("credentials", "warning", {"credential_errors": (PreconditionError("no helper", hint="install it"),)}),
        ("buildx", "error", {"buildx": "0.9.1"}),
        ("buildx", "error", {"buildx": PreconditionError("no docker", hint="install it")}),
        ("vulnerabilities", "warning", {"components": {"runc": "1.1.15"}}),
        ("leftovers", "warning", {"unknown_objects": ("volume tiny-data",)}),
        ("sandbox", "warning", {"sandbox": SandboxFacts("never", has_crashed=True)}),
        ("sandbox", "warning", {"sandbox": SandboxFacts("auto", obstacle="not root")}),
        ("sandbox", "error", {"sandbox": SandboxFacts("always", obstacle="not root")}),
        ("sandbox", "error", {"sandbox": SandboxFacts("auto", obstacle="not root"), "engine": None}),
        ("disk", "warning", {"disks": (Disk("/", 4 * GB, 90, 100),)}),
        ("disk", "error", {"disks": (Disk("/", GB // 2, 90, 100),)}),
        ("disk", "warning", {"disks": (Disk("/", 50 * GB, 9, 100),)}),
        ("disk", "error", {"disks": (Disk("/", 50 * GB, 0, 100),)}),
        ("disk", "ok", {"disks": (Disk("/", 50 * GB, 0, 0),)}),
        ("ports", "ok", {"host_address": "172.17.0.1"}),
        ("ports", "warning", {"host_address": ""}),
        ("clock", "warning", {"now": 1000.0, "commit_time": 2000}),
        ("clock", "warning", {"engine_skew_s": -10.0}),
        ("clock", "ok", {"engine_skew_s": 3.0}),
        ("leftovers", "warning", {"crashed_runs": ("r1",), "leftovers": ("lyra-r1-web",)}),
        ("leftovers", "warning", {"orphans": {"/deleted": ("volume v",)}}),
        ("locks", "error", {"lock_error": PreconditionError("no lock", hint="fix it")}),
        ("journal", "warning", {"journal_problems": ("line 3: edited",)}),
    ],
)
def test_doctor_reports_problem_with_fix(subject: str, state: str, values: dict[str, object]) -> None:
    diagnosis = diagnosis_of(changed(**values), subject)
    assert diagnosis.state == state
    assert bool(diagnosis.fix) == (state != "ok")


def test_missing_limits_of_rootless_engine_have_a_fix_of_their_own() -> None:
    diagnosis = diagnosis_of(
        changed(engine=replace(ENGINE, is_rootless=True, missing_limits=("memory", "CPUs"))), "limits"
    )
    assert diagnosis.message == "this engine cannot limit memory, CPUs, so `test` and `create` refuse it"
    assert "cgroup v2" in diagnosis.fix


def test_doctor_error_exits_with_3_but_warning_does_not() -> None:
    require_no_errors(diagnose(changed(components={"runc": "1.1.11"})))
    with pytest.raises(PreconditionError, match="1 problem found: buildx"):
        require_no_errors(diagnose(changed(buildx="0.9.1")))


@pytest.mark.parametrize(
    ("component", "version", "count"),
    [
        ("runc", "1.1.11", 2),
        ("runc", "1.1.15+ds1", 1),
        ("runc", "1.2.7", 1),
        ("runc", "1.2.8", 0),
        ("runc", "1.3.2", 1),
        ("runc", "1.4.0", 0),
        ("Engine", "20.10.24+dfsg1", 2),
        ("Engine", "23.0.11", 1),
        ("Engine", "24.0.9", 1),
        ("Engine", "25.0.5", 0),
        ("Engine", "26.1.5+dfsg1", 0),
        ("Engine", "dev", 0),
        ("something", "0.1", 0),
    ],
)
def test_vulnerability_is_matched_by_release_line(component: str, version: str, count: int) -> None:
    assert len(find_advisories({component: version})) == count


def test_doctor_ignores_lyras_own_files_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "p"\n')
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "add", "--all")
    run_git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "x")
    for directory in (".lyra", "promotion"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".lyra" / "state"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert str(collect_doctor_facts().git).endswith(", clean")


def run_git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def test_doctor_says_what_limits_builds() -> None:
    assert "does not limit CPUs and memory of their steps" in diagnosis_of(HEALTHY, "builds").message
    limited = changed(sandbox=SandboxFacts("auto", is_running=True, limits="1.5 CPUs and 18.0 GiB"))
    assert "has 1.5 CPUs and 18.0 GiB, with the steps of builds" in diagnosis_of(limited, "builds").message


def test_low_disk_is_announced_with_what_frees_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_LOW_FREE_BYTES", 1 << 62)
    monkeypatch.setattr(doctor, "_MIN_FREE_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "tiny"\n[engine]\nsandbox = "always"\n')
    work = open_workspace(load_config(tmp_path / ".lyra.toml"))
    for path, size in ((work.bundles / "1.0.0" / "image", 9 << 20), (work.paths.work / "runs" / "r1" / "log", 5 << 20)):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
    warn_about_low_disks(work)
    error = " ".join(capsys.readouterr().err.split())
    assert f"Little space left in {tmp_path}: " in error
    first, second = "Remove bundles by `", "(frees up to 9.0 MiB), or run `"
    assert first in error and second in error.split(first)[1], error


def test_low_disk_is_announced_with_what_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        cache = Path(memory)
        if cache.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm and the temporary directory are on one disk")
        monkeypatch.setattr(doctor, "_LOW_FREE_BYTES", 1 << 62)
        monkeypatch.setattr(doctor, "_MIN_FREE_BYTES", 0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "tiny"\n[engine]\nsandbox = "always"\n')
        work = open_workspace(load_config(tmp_path / ".lyra.toml"))
        for path, size in ((work.bundles / "1.0.0" / "image", 5 << 20), (work.paths.cache / "big", 9 << 20)):
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(size))
        warn_about_low_disks(work)
    error = " ".join(capsys.readouterr().err.split())
    on_disk, in_memory = error.split(f"Little space left in {work.paths.cache}: ")
    assert f"Little space left in {tmp_path}: " in on_disk
    assert "Remove bundles by `bundle.remove` (frees up to 5.0 MiB)" in on_disk and "the cache" not in on_disk
    assert "the cache of all your projects (frees up to 9.0 MiB)" in in_memory and "bundle.remove" not in in_memory


def test_low_disk_without_a_project_has_a_fix() -> None:
    assert diagnose_disk(Disk("/", GB // 2, 9, 10)).fix.startswith("Run `clean`")
