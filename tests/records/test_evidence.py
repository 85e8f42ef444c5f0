"""Tests of storing evidence: immutable, named by the journal, and removed with its oldest runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.digests import json_sha256, sha256_hex
from lyra_tasks.errors import StaleError
from lyra_tasks.records.evidence import EVIDENCE_FILES, CheckResult, Evidence, SetKey
from lyra_tasks.records.evidence_store import EvidenceStore
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.retention import Limits

CONFIG = b"Good morning\n"
PARTS = {"file motd.txt": sha256_hex(CONFIG)}


def evidence(run: str, *, passed: bool = True, image: str = "sha256:1") -> Evidence:
    key = SetKey(images={"web": image}, test_doubles={}, effective_hash=json_sha256(PARTS))
    check = CheckResult(name="page", kind="http", service="web", outcome="passed" if passed else "failed")
    return Evidence(
        set=key, part_hashes=PARTS, passed=passed, run=run, started_at=run, seconds=1.0, engine={}, checks=[check],
        rules=[], usage={},
    )  # fmt: skip


class Runs:
    """A checkout with an evidence store, which records test runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.journal = root, Journal(root / "state" / "journal.jsonl")
        self.store = EvidenceStore(root / "state", self.journal)

    def record(self, result: Evidence, text: str = "results", **changes: Any) -> None:
        """Record a run whose files all contain `text`; `changes` falsify its journal entry."""
        directory = self.root / "runs" / result.run
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        for name in (*EVIDENCE_FILES, "logs/web.log"):
            (directory / name).write_text(text)
        checks = {check.title: check.outcome for check in result.checks}
        entry = {"set": result.set.digest, "passed": result.passed, "partial": False, "checks": checks} | changes
        self.store.record(result, directory, [CONFIG], **entry)

    @property
    def directories(self) -> set[str]:
        """Return the names of the directories of runs."""
        paths = (self.root / "state/evidence").iterdir()
        return {path.name for path in paths if path.is_dir() and path.name != "sets"}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_recorded_test_holds_what_was_tested(runs: Runs, tmp_path: Path) -> None:
    result = evidence("r1")
    assert runs.store.read(result.set) is None
    assert runs.store.find_recorded_test(result.set) is None
    runs.record(result)
    recorded = runs.store.find_recorded_test(result.set)
    assert recorded is not None and recorded.evidence == result == runs.store.read(result.set)
    assert recorded.read_input("motd.txt") == CONFIG
    recorded.copy_file("logs/web.log", tmp_path / "out/web.log")
    assert (tmp_path / "out/web.log").read_text() == "results"
    assert (tmp_path / "out/web.log").stat().st_mode & 0o777 == 0o644
    modes = {path.stat().st_mode & 0o777 for path in recorded.directory.rglob("*") if path.is_file()}
    assert modes == {0o400}


def test_failed_write_keeps_the_previous_evidence_complete(runs: Runs) -> None:
    old = evidence("r1")
    runs.record(old, "passed")
    directory = runs.root / "runs" / "r2"
    directory.mkdir()
    (directory / EVIDENCE_FILES[0]).write_text("failed")  # like a full disk
    with pytest.raises(OSError, match=EVIDENCE_FILES[1]):
        runs.store.record(evidence("r2", passed=False), directory, [])
    recorded = runs.store.find_recorded_test(old.set)
    assert recorded is not None and recorded.evidence == old
    assert runs.directories == {"r1"}


def test_judged_run_stays_when_the_set_is_tested_again(runs: Runs, tmp_path: Path) -> None:
    runs.record(evidence("r1"), "first")
    judged = runs.store.find_recorded_test(evidence("r1").set)
    runs.record(evidence("r2", passed=False), "second")
    assert judged is not None and judged.evidence.passed
    judged.copy_file("tests.json", tmp_path / "tests.json")
    assert (tmp_path / "tests.json").read_text() == "first"
    newest = runs.store.read(evidence("r1").set)
    assert newest is not None and not newest.passed


def test_two_tests_of_one_run_do_not_overwrite_each_other(runs: Runs) -> None:
    runs.record(evidence("r1", passed=False), "first")
    runs.record(evidence("r1"), "second")
    assert runs.directories == {"r1", "r1.2"}
    recorded = runs.store.find_recorded_test(evidence("r1").set)
    assert recorded is not None and recorded.evidence.passed


def test_oldest_runs_are_removed_unless_in_use(runs: Runs, tmp_path: Path) -> None:
    runs.store = EvidenceStore(runs.root / "state", runs.journal, Limits(2, 1 << 30))
    results = [evidence(f"r{number}", image=f"sha256:{number}") for number in range(5)]
    for number, result in enumerate(results[:3]):
        runs.record(result)
        os.utime(runs.root / "state/evidence" / result.run, (number, number))
    assert runs.directories == {"r1", "r2"}
    assert runs.store.read(results[0].set) is None
    held = runs.store.find_recorded_test(results[1].set)
    assert held is not None
    with held.hold():
        runs.record(results[3])
        assert runs.directories == {"r1", "r2", "r3"}
        held.copy_file("tests.json", tmp_path / "tests.json")
    runs.record(results[4])
    assert runs.directories == {"r3", "r4"}
    assert len(list((runs.root / "state/evidence/sets").iterdir())) == 2


def test_runs_beyond_the_size_limit_are_removed(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.store = EvidenceStore(runs.root / "state", runs.journal, Limits(50, 100_000))
    for number in range(4):
        runs.record(evidence(f"r{number}", image=f"sha256:{number}"), "x" * 10_000)
    assert runs.directories == {"r2", "r3"}
    assert "Removed the evidence of 1 old test run(s)" in capsys.readouterr().err
    runs.record(evidence("r4", image="sha256:4"), "x" * 100_000)
    assert runs.directories == {"r4"}
    assert runs.journal.find_problems() == []


def test_evidence_of_an_existing_bundle_is_kept(runs: Runs) -> None:
    bundles = runs.root / "promotion" / "app"
    runs.store = EvidenceStore(runs.root / "state", runs.journal, Limits(2, 1 << 30), bundles)
    results = [evidence(f"r{number}", image=f"sha256:{number}") for number in range(5)]
    for result, version in zip(results[:2], ("1.0.0", "1.1.0"), strict=True):
        runs.record(result)
        runs.journal.append(result.run, "promoted", version=version, set=result.set.digest)
    (bundles / "1.0.0").mkdir(parents=True)
    for result in results[2:]:
        runs.record(result)
    assert runs.directories == {"r0", "r4"}
    assert runs.store.find_recorded_test(results[0].set) is not None


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.chmod(0o600)
    path.write_bytes(change(path.read_bytes()))


def set_passed(content: bytes) -> bytes:
    document = json.loads(content)
    return json.dumps({**document, "passed": True}).encode()


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("evidence.json", set_passed, "says passed, but the journal says failed"),
        ("evidence.json", lambda content: content + b"\n", "its digest is not the one in the journal"),
        ("evidence.json", lambda content: content.replace(b'"r1"', b'"r9"'), "newest test of this set is run r1"),
        ("evidence.json", None, r"evidence\.json: missing"),
        ("tests.json", lambda content: b"", r"tests\.json"),
        ("logs/web.log", None, r"logs/web\.log"),
        (f"inputs/{sha256_hex(CONFIG)}", lambda content: b"Good night\n", r"motd\.txt"),
        (f"inputs/{sha256_hex(CONFIG)}", None, r"motd\.txt"),
    ],
)
def test_edited_evidence_is_refused(
    runs: Runs, name: str, change: Callable[[bytes], bytes] | None, problem: str
) -> None:
    result = evidence("r1", passed=False)
    runs.record(result)
    path = runs.root / "state/evidence/r1" / name
    if change is None:
        path.unlink()
    else:
        edit(path, change)
    with pytest.raises(StaleError, match=problem) as refused:
        runs.store.find_recorded_test(result.set)
    assert refused.value.exit_code == 3
    assert "`test`" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"passed": False}, "says passed, but the journal says failed"),
        ({"checks": {"page": "failed"}}, "other results of checks"),
        ({"set": "0"}, "no entry"),
        ({"partial": True}, "no entry"),
    ],
)
def test_contradicting_journal_entry_is_refused(runs: Runs, changes: dict[str, Any], problem: str) -> None:
    runs.record(evidence("r1"), **changes)
    with pytest.raises(StaleError, match=problem):
        runs.store.find_recorded_test(evidence("r1").set)


def test_evidence_of_another_set_is_refused(runs: Runs) -> None:
    first, second = evidence("r1"), evidence("r2", image="sha256:2")
    runs.record(first)
    runs.record(second)
    sets = runs.root / "state/evidence/sets"
    edit(sets / f"{second.set.digest}.json", lambda _: (sets / f"{first.set.digest}.json").read_bytes())
    with pytest.raises(StaleError, match="newest test of this set is run r2"):
        runs.store.find_recorded_test(second.set)


def test_file_that_the_journal_does_not_name_is_refused(runs: Runs) -> None:
    runs.record(evidence("r1"))
    (runs.root / "state/evidence/r1/logs/more.log").write_text("all is well")
    with pytest.raises(StaleError, match=r"more\.log: the journal does not name it"):
        runs.store.find_recorded_test(evidence("r1").set)


def test_run_interrupted_before_its_pointer_is_refused(runs: Runs) -> None:
    runs.record(evidence("r1"))
    pointer = next((runs.root / "state/evidence/sets").iterdir())
    content = pointer.read_bytes()
    runs.record(evidence("r2", passed=False))
    edit(pointer, lambda _: content)
    with pytest.raises(StaleError, match="newest test of this set is run r2"):
        runs.store.find_recorded_test(evidence("r1").set)
