"""Tests of storing evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.records.evidence import EVIDENCE_FILES, Evidence, EvidenceStore, SetKey


def evidence(run: str, *, passed: bool) -> Evidence:
    key = SetKey(images={"web": "sha256:1"}, test_doubles={}, effective_hash="2")
    return Evidence(
        set=key, passed=passed, run=run, started_at=run, seconds=1.0, engine={}, checks=[], rules=[], usage={}
    )


def test_failed_write_does_not_keep_old_evidence(tmp_path: Path) -> None:
    store, run_directory = EvidenceStore(tmp_path / "state"), tmp_path / "run"
    run_directory.mkdir()
    for name in EVIDENCE_FILES:
        (run_directory / name).write_text("passed")
    old = evidence("r1", passed=True)
    store.write(old, run_directory)
    assert store.read(old.set) == old
    for name in EVIDENCE_FILES[:-1]:
        (run_directory / name).write_text("failed")
    (run_directory / EVIDENCE_FILES[-1]).unlink()  # like a full disk
    with pytest.raises(OSError, match=EVIDENCE_FILES[-1]):
        store.write(evidence("r2", passed=False), run_directory)
    assert store.read(old.set) is None, "the files belong to the second run"
