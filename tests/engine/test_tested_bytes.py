"""A promotion ships what was tested: the bytes of that test run, whatever happens to the checkout meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.content.sbom_process import SbomProcess
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.promote.plan import collect_promotion_facts, plan_promotion
from lyra_tasks.bundle.promote.run import create_bundle
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.config.load import load_config
from lyra_tasks.digests import file_sha256
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import StaleError
from lyra_tasks.records.journal import Journal
from lyra_tasks.report.page import render_report
from tests.conftest import Project
from tests.faults import refused

MOTD = "deploy/configs/web/motd.txt"


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a project whose set has passed, with a check that a test can make fail without changing the set."""
    project = make_tiny()
    text = (project.root / ".lyra.toml").read_text()
    (project.root / ".lyra.toml").write_text(
        f'{text}\n[[tests]]\nname = "the host agrees"\nrun = "sh -c \'test ! -e ../refuse\'"\n'
    )
    project.commit("a check of the host")
    project.git("tag", "v1.0.0")
    result = project.lyra("build", "test")
    assert result.code == 0, result.text
    yield project
    project.clean()


@pytest.fixture(scope="module")
def passed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project's state after its only complete test run."""
    return shutil.copytree(project.state, tmp_path_factory.mktemp("passed") / "state")


@pytest.fixture
def tested(project: Project, passed: Path) -> Iterator[Project]:
    """Return the project; afterwards its files and its state are as before, and it has no bundles."""
    motd = (project.root / "app/motd.txt").read_bytes()
    yield project
    (project.root / "app/motd.txt").write_bytes(motd)
    (project.root.parent / "refuse").unlink(missing_ok=True)
    shutil.rmtree(project.root / "promotion", ignore_errors=True)
    shutil.rmtree(project.state)
    shutil.copytree(passed, project.state)


@pytest.fixture
def work(tested: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Open the project in this process."""
    for key, value in tested.environment.items():
        monkeypatch.setenv(key, value)
    workspace = open_workspace(load_config(tested.root))
    yield workspace
    workspace.mark_finished()


def state_of(project: Project) -> Path:
    """Return the state directory of a project."""
    (state,) = project.state.iterdir()
    return state


def newest_evidence(project: Project) -> Path:
    """Return the evidence of the newest test run."""
    return max(state_of(project).glob("evidence/*/evidence.json"), key=lambda path: path.stat().st_mtime_ns)


def test_promotion_ships_the_tested_bytes_of_a_config(tested: Project, work: Workspace, sboms: SbomProcess) -> None:
    before = (tested.root / "app/motd.txt").read_bytes()
    plan = plan_promotion(work.config, collect_promotion_facts(work))
    (tested.root / "app/motd.txt").write_text("Good night\n")  # while the bundle is being written
    bundle = create_bundle(plan, work, render_report, sboms).bundle
    assert (bundle.directory / MOTD).read_bytes() == before
    verify_bundle(bundle.directory)


def test_promotion_refuses_missing_or_changed_stored_bytes(
    tested: Project, work: Workspace, sboms: SbomProcess
) -> None:
    digest = file_sha256(tested.root / "app/motd.txt")
    stored = newest_evidence(tested).parent / "inputs" / digest
    assert stored.stat().st_mode & 0o777 == 0o400
    stored.chmod(0o600)
    plan = plan_promotion(work.config, collect_promotion_facts(work))
    stored.write_text("Good night\n")
    with pytest.raises(StaleError, match=r"app/motd\.txt") as changed:
        create_bundle(plan, work, render_report, sboms)
    assert changed.value.exit_code == 3
    refused(tested.lyra("promote"), 3, "app/motd.txt")
    stored.unlink()
    refused(tested.lyra("promote"), 3, "app/motd.txt")
    assert tested.bundles() == []


def test_promotion_uses_the_run_that_it_judged_and_refuses_edited_evidence(
    tested: Project, work: Workspace, sboms: SbomProcess
) -> None:
    plan = plan_promotion(work.config, collect_promotion_facts(work))
    (tested.root.parent / "refuse").touch()
    assert tested.lyra("test").code == 5
    bundle = create_bundle(plan, work, render_report, sboms).bundle
    tests = json.loads((bundle.directory / layout.TESTS_JSON_FILE).read_bytes())
    assert (tests["passed"], tests["run"]) == (True, bundle.manifest.run)
    assert all(check["outcome"] == "passed" for check in tests["checks"])
    verify_bundle(bundle.directory)
    shutil.rmtree(tested.root / "promotion")
    refused(tested.lyra("promote"), 3, "The last test run failed: the host agrees")
    set_passed(newest_evidence(tested))
    refused(tested.lyra("promote"), 3, "evidence.json")
    assert tested.bundles() == []


def set_passed(path: Path) -> None:
    """Edit evidence as if every check had passed."""
    document: dict[str, Any] = json.loads(path.read_bytes())
    document["passed"] = True
    for check in document["checks"]:
        check |= {"outcome": "passed", "message": ""}
    path.chmod(0o600)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["tests.json", "tests.xml", "metrics.json", "logs/web.log"])
def test_promotion_refuses_edited_evidence_files(tested: Project, name: str) -> None:
    path = newest_evidence(tested).with_name("evidence.json").parent / name
    assert path.stat().st_mode & 0o222 == 0
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"\n")
    refused(tested.lyra("promote"), 3, name)
    path.unlink()
    refused(tested.lyra("promote"), 3, name)
    path.parent.mkdir(exist_ok=True)
    assert tested.bundles() == []


def test_promotion_refuses_extra_evidence_file(tested: Project) -> None:
    (newest_evidence(tested).parent / "logs/other.log").write_text("2026-11-23T21:15:04Z out all is well\n")
    refused(tested.lyra("promote"), 3, "logs/other.log")


def test_promotion_refuses_evidence_without_journal_entry(tested: Project) -> None:
    journal = state_of(tested) / "journal.jsonl"
    lines = journal.read_bytes()
    without = b"".join(line for line in lines.splitlines(keepends=True) if b'"event":"tested"' not in line)
    journal.write_bytes(without)
    try:
        refused(tested.lyra("promote"), 3, "journal")
    finally:
        journal.write_bytes(lines)
        journal.with_suffix(".head").unlink()


def test_journal_names_the_digests_of_the_evidence(tested: Project) -> None:
    (_, entry), *_ = Journal(state_of(tested) / "journal.jsonl").find_backwards("tested")
    evidence = newest_evidence(tested)
    assert entry.data["evidence"] == f"sha256:{file_sha256(evidence)}"
    assert set(entry.data["files"]) >= {"tests.json", "tests.xml", "metrics.json", "logs/web.log"}
    for name, digest in entry.data["files"].items():
        assert digest == f"sha256:{file_sha256(evidence.parent / name)}", name
