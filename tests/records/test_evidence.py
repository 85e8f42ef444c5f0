"""What is kept of a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.records.evidence import EVIDENCE_FILES, Evidence, EvidenceStore, SetKey


def evidence(run: str, *, passed: bool) -> Evidence:
    key = SetKey(images={"web": "sha256:1"}, test_doubles={}, effective_hash="2")
    return Evidence(
        set=key, passed=passed, run=run, started_at=run, seconds=1.0, engine={}, checks=[], rules=[], usage={}
    )


def test_a_verdict_does_not_stand_beside_the_files_of_another_that_could_not_be_kept(tmp_path: Path) -> None:
    store, files = EvidenceStore(tmp_path / "state"), tmp_path / "run"
    files.mkdir()
    for name in EVIDENCE_FILES:
        (files / name).write_text("passed")
    first = evidence("r1", passed=True)
    store.write(first, files)
    assert store.read(first.set) == first
    for name in EVIDENCE_FILES[:-1]:
        (files / name).write_text("failed")
    (files / EVIDENCE_FILES[-1]).unlink()  # what a disk that is full comes to
    with pytest.raises(OSError, match=EVIDENCE_FILES[-1]):
        store.write(evidence("r2", passed=False), files)
    assert store.read(first.set) is None, "the files are those of the second"
