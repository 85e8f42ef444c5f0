"""Files that are whole or not there, also on file systems that can do less."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lyra_tasks import files


def refusing(number: int) -> object:
    def fsync(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_is_told_of_and_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    files._warn_not_synced.cache_clear()
    monkeypatch.setattr(os, "fsync", refusing(number))
    for name in ("one", "two"):
        files.write_file(tmp_path / name, b"whole")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"whole", b"whole"]
    assert capsys.readouterr().err.count("a file system here cannot sync") == 1


def test_a_disk_that_fails_while_it_syncs_is_a_fault_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_file(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.write_file(tmp_path / "file", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_write_that_is_interrupted_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_handle: int) -> None:
        raise KeyboardInterrupt

    files.write_file(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_file(tmp_path / "file", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]


@pytest.mark.parametrize("unreadable", [".", "below"])
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    for path in (top / "one", top / "below" / "two"):
        path.write_text("here")
    whole = {path.relative_to(top) for path in top.rglob("*") if path.is_file()}
    assert {
        (folder / name).relative_to(top) for folder, _, names in files.walk_directory(top) for name in names
    } == whole
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == top / unreadable:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for fails in (lambda: list(files.walk_directory(top)), lambda: files.copy_directory(top, tmp_path / "copy")):
        with pytest.raises(OSError, match="No space left"):
            fails()
