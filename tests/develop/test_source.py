"""Listing, comparing and packing the source of a service."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lyra_tasks.develop.source import SourceChanges, diff_source, list_local_files, write_source_archive
from lyra_tasks.records.dev import UploadedFile


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The directory `app` of a repository."""
    app = tmp_path / "app"
    (app / "sub").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (app / "tracked").write_text("tracked")
    (app / "sub" / "deleted").write_text("deleted")
    subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
    (app / "sub" / "deleted").unlink()
    (app / ".gitignore").write_text("*.log\n")
    (app / "ignored.log").touch()
    (app / "sub" / "untracked").write_text("untracked")
    (tmp_path / "elsewhere").touch()
    (app / "bundles").mkdir()
    (app / "bundles" / "big").touch()
    return app


def names(app: Path) -> set[str]:
    return set(list_local_files(app, app / "bundles").files)


def upload(app: Path) -> dict[str, UploadedFile]:
    files = list_local_files(app, app / "bundles").files
    return write_source_archive(app, files, io.BytesIO(), 5, 6)


def test_local_files_exclude_ignored_files_and_bundles(tree: Path) -> None:
    assert names(tree) == {"tracked", ".gitignore", "sub/untracked"}


def test_files_behind_symlinked_directory_are_listed_once(tree: Path) -> None:
    (tree / "real").mkdir()
    (tree / "real" / "file").touch()
    (tree / "was-directory").mkdir()
    (tree / "was-directory" / "file").touch()
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)
    (tree / "was-directory" / "file").unlink()
    (tree / "was-directory").rmdir()
    (tree / "was-directory").symlink_to("real")
    assert {"was-directory", "real/file"} <= names(tree)
    assert "was-directory/file" not in names(tree)


def test_invalid_file_name_is_reported_and_skipped(tree: Path) -> None:
    (tree / os.fsdecode(b"caf\xe9")).touch()
    local = list_local_files(tree, tree / "bundles")
    assert local.invalid_names == ("caf\ufffd",)
    assert not any(name.startswith("caf") for name in local.files)


def test_touched_file_is_not_a_change(tree: Path) -> None:
    previous = upload(tree)
    os.utime(tree / "tracked", (1, 1))
    assert diff_source(tree, list_local_files(tree, tree / "bundles").files, previous) == SourceChanges((), ())


@pytest.mark.parametrize("change", ["content", "content of the same time", "mode", "link"])
def test_changed_file_is_uploaded_again(tree: Path, change: str) -> None:
    previous = upload(tree)
    if change.startswith("content"):
        status = (tree / "tracked").stat()
        (tree / "tracked").write_text("TRACKED")
        if change.endswith("time"):
            os.utime(tree / "tracked", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "mode":
        (tree / "tracked").chmod(0o755)
    else:
        (tree / "tracked").unlink()
        (tree / "tracked").symlink_to("tracked")
    changes = diff_source(tree, list_local_files(tree, tree / "bundles").files, previous)
    assert (changes.upload, changes.delete) == (("tracked",), ())


def test_deleted_file_leaves_no_empty_directories(tree: Path) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "c").touch()
    previous = upload(tree)
    (tree / "a" / "b" / "c").unlink()
    changes = diff_source(tree, list_local_files(tree, tree / "bundles").files, previous)
    assert (changes.upload, changes.delete, changes.empty_directories) == ((), ("a/b/c",), ("a/b", "a"))


def test_archive_lists_directories_first_with_given_owner(tree: Path) -> None:
    buffer = io.BytesIO()
    (tree / "sub" / "link").symlink_to("../tracked")
    write_source_archive(tree, sorted(list_local_files(tree, tree / "bundles").files), buffer, 5, 6)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [".gitignore", "sub", "sub/link", "sub/untracked", "tracked"]
        assert {(member.uid, member.gid) for member in members} == {(5, 6)}
        assert archive.getmember("sub/link").linkname == "../tracked"
        content = archive.extractfile("sub/untracked")
        assert content is not None
        assert content.read() == b"untracked"


def test_vanished_file_is_not_in_archive(tree: Path) -> None:
    assert write_source_archive(tree, ["tracked", "vanished"], io.BytesIO(), 0, 0).keys() == {"tracked"}
