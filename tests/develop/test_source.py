"""Which files are the source, what changed of them, and how they are packed."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lyra_tasks.develop.source import diff_source, list_local_files, write_source_archive
from lyra_tasks.records.dev import UploadedFile


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a folder `app`, whose files are to be developed."""
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


def carried(app: Path) -> dict[str, UploadedFile]:
    files = list_local_files(app, app / "bundles").files
    return write_source_archive(app, files, io.BytesIO(), 5, 6).files


def test_the_source_is_what_git_has_and_does_not_ignore_without_bundles(tree: Path) -> None:
    assert names(tree) == {"tracked", ".gitignore", "sub/untracked"}


def test_what_lies_behind_a_link_is_not_carried_twice(tree: Path) -> None:
    (tree / "real").mkdir()
    (tree / "real" / "file").touch()
    (tree / "was-folder").mkdir()
    (tree / "was-folder" / "file").touch()
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)
    (tree / "was-folder" / "file").unlink()
    (tree / "was-folder").rmdir()
    (tree / "was-folder").symlink_to("real")
    assert {"was-folder", "real/file"} <= names(tree)
    assert "was-folder/file" not in names(tree)


def test_a_name_that_is_no_text_is_told_and_left_out(tree: Path) -> None:
    (tree / os.fsdecode(b"caf\xe9")).touch()
    found = list_local_files(tree, tree / "bundles")
    assert found.invalid_names == ("caf\ufffd",)
    assert not any(name.startswith("caf") for name in found.files)


def test_nothing_changed_is_nothing_to_do_even_if_a_file_was_touched(tree: Path) -> None:
    before = carried(tree)
    os.utime(tree / "tracked", (1, 1))
    assert not diff_source(tree, list_local_files(tree, tree / "bundles").files, before)


@pytest.mark.parametrize("how", ["content", "mode", "link"])
def test_a_changed_file_is_carried_again(tree: Path, how: str) -> None:
    before = carried(tree)
    if how == "content":
        (tree / "tracked").write_text("TRACKED")
    elif how == "mode":
        (tree / "tracked").chmod(0o755)
    else:
        (tree / "tracked").unlink()
        (tree / "tracked").symlink_to("tracked")
    todo = diff_source(tree, list_local_files(tree, tree / "bundles").files, before)
    assert (todo.upload, todo.delete) == (("tracked",), ())


def test_a_file_that_is_gone_is_deleted_with_the_folders_that_nothing_is_left_in(tree: Path) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "c").touch()
    before = carried(tree)
    (tree / "a" / "b" / "c").unlink()
    todo = diff_source(tree, list_local_files(tree, tree / "bundles").files, before)
    assert (todo.upload, todo.delete, todo.empty_directories) == ((), ("a/b/c",), ("a/b", "a"))


def test_a_tar_belongs_to_the_services_user_folders_first(tree: Path) -> None:
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


def test_a_file_that_vanishes_meanwhile_is_not_in_the_tar(tree: Path) -> None:
    assert write_source_archive(tree, ["tracked", "vanished"], io.BytesIO(), 0, 0).files.keys() == {"tracked"}
