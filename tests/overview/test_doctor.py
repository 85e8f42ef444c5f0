from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import EngineFacts
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.overview.doctor import (
    Diagnosis,
    Disk,
    DoctorFacts,
    SandboxFacts,
    diagnose,
    require_no_errors,
    vulnerable_components,
)
from lyra_tasks.overview.doctor_facts import collect_doctor_facts

ENGINE = EngineFacts("id", "28.5.1", (1, 51), "containerd", 4, 8 * 10**9, "linux/amd64", sandboxed=False)
SOUND = DoctorFacts(
    config=".lyra.toml: tiny", engine=ENGINE, components={"Engine": "28.5.1", "runc": "1.3.3"}, buildx="0.29.1"
)
GB = 10**9


def found(facts: DoctorFacts, what: str) -> Diagnosis:
    (finding,) = [each for each in diagnose(facts) if each.subject == what]
    return finding


def changed(**values: object) -> DoctorFacts:
    return DoctorFacts(**{**vars(SOUND), **values})


def test_all_is_well_where_all_is_well() -> None:
    assert {each.state for each in diagnose(SOUND)} == {"ok"}
    require_no_errors(diagnose(SOUND))


@pytest.mark.parametrize(
    ("what", "state", "values"),
    [
        ("config", "fault", {"config": PreconditionError("no file", hint="write it")}),
        ("git", "fault", {"git": PreconditionError("git is missing", hint="install it")}),
        ("engine", "fault", {"engine": EngineUnavailableError("none", hint="start it")}),
        ("API", "warning", {"engine": EngineFacts("id", "20.10.24", (1, 41), "classic", 1, 1, "linux/amd64", False)}),
        ("buildx", "fault", {"buildx": "0.9.1"}),
        ("buildx", "fault", {"buildx": PreconditionError("no docker", hint="install it")}),
        ("known faults", "warning", {"components": {"runc": "1.1.15"}}),
        ("sandbox", "warning", {"sandbox": SandboxFacts("never", has_crashed=True)}),
        ("sandbox", "warning", {"sandbox": SandboxFacts("auto", obstacle="this is not root")}),
        ("sandbox", "fault", {"sandbox": SandboxFacts("always", obstacle="this is not root")}),
        ("sandbox", "fault", {"sandbox": SandboxFacts("auto", obstacle="this is not root"), "engine": None}),
        ("disk", "warning", {"disks": (Disk("/", 4 * GB, 90, 100),)}),
        ("disk", "fault", {"disks": (Disk("/", GB // 2, 90, 100),)}),
        ("disk", "warning", {"disks": (Disk("/", 50 * GB, 9, 100),)}),
        ("disk", "fault", {"disks": (Disk("/", 50 * GB, 0, 100),)}),
        ("disk", "ok", {"disks": (Disk("/", 50 * GB, 0, 0),)}),
        ("clock", "warning", {"now": 1000.0, "commit_time": 2000}),
        ("clock", "warning", {"now": 1000.0, "engine_time": 990.0}),
        ("clock", "ok", {"now": 1000.0, "engine_time": 1003.0}),
        ("leftovers", "warning", {"crashed": ("r1",), "left": ("lyra-r1-web",)}),
        ("leftovers", "warning", {"orphans": {"/gone": ("volume v",)}}),
        ("locks", "fault", {"pins": PreconditionError("no lock", hint="mend it")}),
        ("journal", "warning", {"journal": ("line 3: edited",)}),
    ],
)
def test_what_is_wrong_is_named_with_its_fix(what: str, state: str, values: dict[str, object]) -> None:
    finding = found(changed(**values), what)
    assert finding.state == state
    assert bool(finding.fix) == (state != "ok")


def test_a_fault_ends_with_3_and_a_warning_does_not() -> None:
    require_no_errors(diagnose(changed(components={"runc": "1.1.11"})))
    with pytest.raises(PreconditionError, match=r"1 fault\(s\): buildx"):
        require_no_errors(diagnose(changed(buildx="0.9.1")))


@pytest.mark.parametrize(
    ("component", "version", "faults"),
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
def test_a_fault_is_known_by_release_line(component: str, version: str, faults: int) -> None:
    assert len(list(vulnerable_components({component: version}))) == faults


def test_what_lyra_writes_itself_is_no_change_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "p"\n')
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "add", "--all")
    run_git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "x")
    for place in (".lyra", "promotion"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".lyra" / "state"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert str(collect_doctor_facts().git).endswith(", clean")


def run_git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True)
