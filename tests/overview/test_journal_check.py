"""The journal against its own chain and against the entries that bundles hold."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.layout import JOURNAL_FILE
from lyra_tasks.bundle.format.signature import sign_checksums
from lyra_tasks.overview.journal_check import check_journal
from lyra_tasks.records.journal import Journal
from tests.conftest import Project
from tests.faults import refused

pytestmark = pytest.mark.slow

PROJECT = "tiny-0123456789"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a key that signs bundles."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal with two runs, of which each made objects in an engine."""
    journal = Journal(tmp_path / "journal.jsonl")
    for run in ("r1", "r2"):
        journal.append(run, "run", command=["build", "test"], user="ada")
        journal.append(run, "engine", engine="e1", checkout=PROJECT)
        journal.append(run, "task", task="test", exit_code=5 if run == "r1" else 0)
    return journal


def promote(journal: Journal, bundles: Path, version: str, run: str, key: Path | None = None) -> Path:
    """Create what a bundle has of the journal."""
    file = bundles / version / JOURNAL_FILE
    file.parent.mkdir(parents=True)
    lines = [json.dumps(entry.__dict__, sort_keys=True) for entry in journal.entries() if entry.run == run]
    file.write_text("\n".join(lines) + "\n")
    write_checksums(bundles / version)
    if key is not None:
        sign_checksums(bundles / version, key)
    return bundles / version


def write_anew(journal: Journal, change: Callable[[str, dict[str, object]], dict[str, object] | None]) -> None:
    """Replace the journal by one whose chain is valid."""
    entries = list(journal.entries())
    journal.path.unlink()
    journal.head_file.unlink()
    for entry in entries:
        data = change(entry.event, entry.data)
        if data is not None:
            journal.append(entry.run, entry.event, **data)


def pass_tests(event: str, data: dict[str, object]) -> dict[str, object]:
    return {**data, "exit_code": 0} if event == "task" else data


def test_unchanged_journal_agrees_with_bundles(tmp_path: Path, journal: Journal, key: Path) -> None:
    promote(journal, tmp_path / "bundles", "1.0.0", "r1")
    promote(journal, tmp_path / "bundles", "1.1.0", "r2", key)
    check = check_journal(journal, tmp_path / "bundles", PROJECT)
    assert (check.problems, check.not_compared) == ((), {})
    assert check.compared[0].startswith("1.1.0 (signed with the ED25519 key SHA256:")
    assert check.compared[1:] == ("1.0.0 (not signed)",)


def test_chain_computed_anew_is_found(tmp_path: Path, journal: Journal, key: Path) -> None:
    promote(journal, tmp_path / "bundles", "1.0.0", "r1")
    promote(journal, tmp_path / "bundles", "1.1.0", "r2", key)
    write_anew(journal, pass_tests)
    assert journal.find_problems() == [], "its own chain is valid"
    signed, unsigned = check_journal(journal, tmp_path / "bundles", PROJECT).problems
    assert signed.startswith("bundle 1.1.0 (signed with the ") and "4 to 6 were written anew" in signed
    assert unsigned.startswith("bundle 1.0.0 (not signed)") and "1 to 3 were written anew" in unsigned


def test_entries_without_successors_are_found_missing(tmp_path: Path, journal: Journal) -> None:
    promote(journal, tmp_path / "bundles", "1.1.0", "r2")
    write_anew(journal, lambda event, data: None if event == "task" else data)
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join(lines[:3]))
    journal.head_file.write_text(f"{3:020d} {list(journal.entries())[-1].hash}\n")
    assert journal.find_problems() == []
    (problem,) = check_journal(journal, tmp_path / "bundles", PROJECT).problems
    assert problem == "bundle 1.1.0 (not signed) holds entries that are missing here: 4 to 6"


def test_journal_that_was_removed_is_found(tmp_path: Path, journal: Journal) -> None:
    promote(journal, tmp_path / "bundles", "1.1.0", "r2")
    journal.path.unlink()
    journal.head_file.unlink()
    assert check_journal(journal, tmp_path / "bundles", PROJECT).problems
    journal.append("r3", "run", command=["history"])
    assert check_journal(journal, tmp_path / "bundles", PROJECT).problems


def test_bundles_that_cannot_be_compared_are_named(tmp_path: Path, journal: Journal, key: Path) -> None:
    bundles = tmp_path / "bundles"
    other = Journal(tmp_path / "other.jsonl")
    other.append("r9", "engine", engine="e1", checkout="tiny-9876543210")
    old = Journal(tmp_path / "old.jsonl")
    old.append("r8", "task", task="test")
    promote(other, bundles, "1.0.0", "r9")
    promote(old, bundles, "1.0.1", "r8")
    damaged = promote(journal, bundles, "1.0.2", "r1")
    (damaged / JOURNAL_FILE).write_text('[{"seq":')
    edited = promote(journal, bundles, "1.0.3", "r2", key)
    (edited / JOURNAL_FILE).write_text((edited / JOURNAL_FILE).read_text().replace('"exit_code": 0', '"exit_code": 1'))
    (bundles / ".staging-1.0.4").mkdir()
    check = check_journal(journal, bundles, PROJECT)
    assert (check.problems, check.compared) == ((), ())
    assert list(check.not_compared) == ["1.0.2", "1.0.3", "1.0.0", "1.0.1"]
    assert check.not_compared["1.0.0"] == check.not_compared["1.0.1"] == "promoted from another checkout"
    assert "signature does not fit" in check.not_compared["1.0.3"]


def test_history_check_compares_with_bundles_and_goes_on(lonely: Project) -> None:
    assert lonely.lyra("test").code == 3
    checked = lonely.lyra("history", "--check")
    assert checked.code == 0, checked.text
    assert "no signed bundle" in checked.out
    (path,) = lonely.state.glob("*/journal.jsonl")
    journal = Journal(path)
    run = next(journal.entries()).run
    bundle = promote(journal, lonely.root / "promotion" / "tiny", "1.0.0", run)
    assert "the same as in bundle 1.0.0 (not signed)" in lonely.lyra("history", "--check").out
    lines = [json.loads(line) for line in (bundle / JOURNAL_FILE).read_text().splitlines()]
    replaced = [json.dumps({**line, "hash": "0" * 64}) for line in lines]
    (bundle / JOURNAL_FILE).write_text("\n".join(replaced))
    refused(lonely.lyra("history", "--check"), 5, "bundle 1.0.0 (not signed) holds other entries")
    assert lonely.lyra("history").code == 0


@pytest.mark.parametrize("head", ["9" * 5000, "garbage"])
def test_commands_go_on_with_damaged_head(lonely: Project, head: str) -> None:
    project = replace(lonely, environment={**lonely.environment, "DOCKER_HOST": "unix:///nowhere.sock"})
    assert project.lyra("history").code == 0
    (path,) = project.state.glob("*/journal.head")
    path.write_text(head)
    refused(project.lyra("build"), 3, "no such socket")
    path.write_text(head)
    refused(project.lyra("clean"), 3, "no such socket")
    refused(project.lyra("history", "--check"), 5, "the head file was damaged when it was written")
