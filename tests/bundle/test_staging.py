"""Folders that are there whole or not at all, and where they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.bundle.format.staging import publish_directory, staging_directory, warn_if_world_writable


def test_what_an_earlier_stage_left_is_swept(tmp_path: Path) -> None:
    for left in (".staging-1.0.0", ".staging-0.9.0", ".staging-0.9.0.old"):
        (tmp_path / left / "deep").mkdir(parents=True)
        (tmp_path / left / "deep" / "file").write_text("half")
    (tmp_path / "0.8.0").mkdir()
    with staging_directory(tmp_path / "1.0.0", "promote") as stage:
        (stage / "file").write_text("whole")
        publish_directory(stage, tmp_path / "1.0.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.8.0", "1.0.0"]
    assert [path.name for path in (tmp_path / "1.0.0").iterdir()] == ["file"]


@pytest.mark.parametrize(("mode", "told"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_a_folder_that_everybody_may_change_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, told: bool
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    folder.chmod(mode)
    warn_if_world_writable(folder)
    said = capsys.readouterr().err
    assert (str(folder) in said and "unsafe mode drwxrwxrwx" in said and "chmod o-w" in said) is told
    assert bool(said) is told
