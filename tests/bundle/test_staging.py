"""Directories that are created atomically, and their parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.bundle.format.staging import publish_directory, staging_directory, warn_if_world_writable


def test_staging_removes_leftovers(tmp_path: Path) -> None:
    for leftover in (".staging-1.0.0", ".staging-0.9.0", ".staging-0.9.0.old"):
        (tmp_path / leftover / "deep").mkdir(parents=True)
        (tmp_path / leftover / "deep" / "file").write_text("partial")
    (tmp_path / "0.8.0").mkdir()
    with staging_directory(tmp_path / "1.0.0", "promote") as stage:
        (stage / "file").write_text("complete")
        publish_directory(stage, tmp_path / "1.0.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.8.0", "1.0.0"]
    assert [path.name for path in (tmp_path / "1.0.0").iterdir()] == ["file"]


@pytest.mark.parametrize(("mode", "warns"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_world_writable_directory_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warns: bool
) -> None:
    directory = tmp_path / "bundles"
    directory.mkdir()
    directory.chmod(mode)
    warn_if_world_writable(directory)
    warning = capsys.readouterr().err
    assert (f"{directory}: mode drwxrwxrwx" in warning and f"chmod o-w {directory}" in warning) is warns
    assert bool(warning) is warns


def test_staging_of_another_process_is_no_leftover(tmp_path: Path) -> None:
    with staging_directory(tmp_path / "1.0.0", "bundle.pack", stale_pattern="1.0.0*") as first:
        (first / "file").write_text("first")
        with staging_directory(tmp_path / "1.0.0", "bundle.pack", stale_pattern="1.0.0*") as second:
            assert second != first
            (second / "file").write_text("second")
            publish_directory(second, tmp_path / "1.0.0")
        assert (tmp_path / "1.0.0" / "file").read_text() == "second"
        publish_directory(first, tmp_path / "1.0.0")
    assert (tmp_path / "1.0.0" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["1.0.0"]
