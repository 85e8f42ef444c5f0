"""Atomic and durable writes, also on file systems that support less."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lyra_tasks import files


def failing_fsync(number: int) -> object:
    def fsync(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_missing_fsync_support_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    files._warn_not_synced.cache_clear()
    monkeypatch.setattr(os, "fsync", failing_fsync(number))
    for name in ("one", "two"):
        files.write_file(tmp_path / name, b"whole")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"whole", b"whole"]
    assert capsys.readouterr().err.count("A file system does not support fsync") == 1


def test_failed_fsync_raises_and_keeps_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_file(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "fsync", failing_fsync(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.write_file(tmp_path / "file", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_interrupted_write_keeps_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_fd: int) -> None:
        raise KeyboardInterrupt

    files.write_file(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_file(tmp_path / "file", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]


@pytest.mark.parametrize("unreadable", [".", "below"])
def test_unreadable_directory_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str) -> None:
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    for path in (top / "one", top / "below" / "two"):
        path.write_text("here")
    expected = {path.relative_to(top) for path in top.rglob("*") if path.is_file()}
    assert {
        (path / name).relative_to(top) for path, _, names in files.walk_directory(top) for name in names
    } == expected
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == top / unreadable:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for call in (lambda: list(files.walk_directory(top)), lambda: files.copy_directory(top, tmp_path / "copy")):
        with pytest.raises(OSError, match="No space left"):
            call()


@pytest.mark.parametrize("at", ["same disk", "other disk"])
@pytest.mark.parametrize("target_exists", [False, True])
def test_link_or_copy_replaces_its_target(tmp_path: Path, at: str, target_exists: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if at == "other disk" else tmp_path) as directory:
        source, target = tmp_path / "source", Path(directory, "target")
        assert (source.parent.stat().st_dev != target.parent.stat().st_dev) == (at == "other disk")
        source.write_bytes(b"whole")
        if target_exists:
            target.write_bytes(b"part of a longer text")
        files.link_or_copy(source, target)
        assert target.read_bytes() == b"whole"
        assert target.samefile(source) == (at == "same disk")
        source.unlink()
        with pytest.raises(FileNotFoundError):
            files.link_or_copy(source, target)


def test_failed_copy_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_part(_source: Path, target: Path) -> None:
        target.write_bytes(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", copy_part)
    (tmp_path / "source").write_bytes(b"whole")
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        pytest.raises(OSError, match="No space left"),
    ):
        files.link_or_copy(tmp_path / "source", Path(directory, "target"))
    assert not Path(directory, "target").exists()


@given(st.lists(st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name), unique=True, max_size=20))
@example([b"caf\xe9", rb"caf\xe9", rb"caf\\xe9", b"caf\\\xe9", "café".encode()])
def test_escaped_names_are_text_and_stay_different(names: list[bytes]) -> None:
    escaped = [files.escape_name(os.fsdecode(name)) for name in names]
    assert len({text.encode() for text in escaped}) == len(names)


@given(st.dictionaries(st.text(), st.text() | st.characters(categories=["Cs"])))
def test_every_text_can_be_written_as_json(document: dict[str, str]) -> None:
    text = files.format_json(document)
    text.encode()
    assert json.loads(text).keys() == document.keys()


def test_bytes_of_a_name_are_escaped_in_json() -> None:
    assert json.loads(files.format_json({"name": os.fsdecode(b"caf\xe9")})) == {"name": "caf\\xe9"}


def test_umask_is_restored_after_the_last_block() -> None:
    previous = os.umask(0o077)
    try:
        with files.standard_umask():
            with files.standard_umask():
                assert _current_umask() == 0o022
            assert _current_umask() == 0o022
        assert _current_umask() == 0o077
    finally:
        os.umask(previous)


def _current_umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_size_of_a_directory_counts_each_file_but_nothing_behind_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name, size in (("a/one", 10), ("a/b/two", 100), ("outside", 1000)):
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    assert files.measure_size(tmp_path / "a") == 110 + len("../..")
    assert files.measure_size(tmp_path / "a" / "one") == 10
    assert files.measure_size(tmp_path / "missing") == 0
