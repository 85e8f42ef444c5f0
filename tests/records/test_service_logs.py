"""Tests of reading service logs."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.records.documents import read_service_logs
from lyra_tasks.records.evidence import BUILD_LOG, MERGED_LOG


def test_service_logs_exclude_merged_and_build_logs(tmp_path: Path) -> None:
    for name in ("build.log", "all.log", BUILD_LOG, MERGED_LOG, "group/build.log", f"group/{MERGED_LOG}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"2026-01-01T00:00:00Z out {name}\n")
    assert set(read_service_logs(tmp_path)) == {"all", "build", "group/build"}
