"""Unpacked packages in the cache: what was changed since they were verified, or could have been, is not run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.engine.debian.unpacked import (
    claim_directory,
    hash_tree,
    is_own_directory,
    is_protected,
    is_unchanged,
    protect_tree,
)
from lyra_tasks.engine.sandbox import packages
from lyra_tasks.errors import PreconditionError

pytestmark = pytest.mark.slow

NOBODY = 65534


def unpack(directory: Path) -> tuple[dict[str, str], Path]:
    """Create a tree with programs, a library and links, and the list of its contents."""
    (directory / "bin").mkdir(parents=True)
    (directory / "root" / "sbin").mkdir(parents=True)
    (directory / "root" / "sbin" / "ip").write_text("the real one")
    (directory / "root" / "sbin" / "ip").chmod(0o755)
    (directory / "bin" / "ip").symlink_to(Path("..", "root", "sbin", "ip"))
    (directory / "xtables").symlink_to("root/sbin")
    protect_tree(directory)
    contents, list_file = hash_tree(directory), directory / "contents.json"
    list_file.write_text("{}")
    list_file.chmod(0o644)
    return contents, list_file


def replace_program(directory: Path) -> None:
    path = directory / "root" / "sbin" / "ip"
    times = path.stat()
    path.write_text("another one ")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def redirect_link(directory: Path) -> None:
    (directory / "bin" / "ip").unlink()
    (directory / "bin" / "ip").symlink_to("/tmp/ip")


def replace_link(directory: Path) -> None:
    (directory / "bin" / "ip").unlink()
    (directory / "bin" / "ip").write_text("another one ")


def redirect_directory(directory: Path) -> None:
    (directory / "xtables").unlink()
    (directory / "xtables").symlink_to("/tmp")


def add_library(directory: Path) -> None:
    (directory / "bin" / "libc.so.6").write_text("another one ")


def remove_link(directory: Path) -> None:
    (directory / "bin" / "ip").unlink()


def add_fifo(directory: Path) -> None:
    os.mkfifo(directory / "bin" / "fifo", 0o600)


def give_away_program(directory: Path) -> None:
    os.chown(directory / "root" / "sbin" / "ip", NOBODY, NOBODY)


def give_away_directory(directory: Path) -> None:
    os.chown(directory / "bin", NOBODY, NOBODY)


def give_away_link(directory: Path) -> None:
    os.chown(directory / "bin" / "ip", NOBODY, NOBODY, follow_symlinks=False)


def open_to_group(directory: Path) -> None:
    (directory / "bin").chmod(0o775)


def open_to_all(directory: Path) -> None:
    (directory / "root" / "sbin" / "ip").chmod(0o757)


CHANGES = [
    *(replace_program, redirect_link, replace_link, redirect_directory, add_library, remove_link, add_fifo),
    *(give_away_program, give_away_directory, give_away_link, open_to_group, open_to_all),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_tree_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    contents, list_file = unpack(tmp_path / "engine")
    assert is_unchanged(tmp_path / "engine", contents, list_file)
    change(tmp_path / "engine")
    assert not is_unchanged(tmp_path / "engine", contents, list_file)


def test_copied_tree_is_the_same(tmp_path: Path) -> None:
    contents, _ = unpack(tmp_path / "engine")
    shutil.copytree(tmp_path / "engine", tmp_path / "copy", symlinks=True)
    assert is_unchanged(tmp_path / "copy", contents, tmp_path / "copy" / "contents.json")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_unpacked_tree_is_protected_under_any_umask(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        contents, list_file = unpack(tmp_path / "engine")
    finally:
        os.umask(previous)
    assert is_protected(tmp_path / "engine") and is_unchanged(tmp_path / "engine", contents, list_file)


def test_directory_that_others_could_write_to_is_emptied(tmp_path: Path) -> None:
    for mode, is_kept in ((0o755, True), (0o777, False), (0o770, False)):
        directory = tmp_path / f"{mode:o}"
        (directory / "lists").mkdir(parents=True)
        (directory / "apt.conf").touch()
        directory.chmod(mode)
        claim_directory(directory, keep=False)
        assert is_own_directory(directory)
        assert bool(list(directory.iterdir())) == is_kept


def test_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "lyra"
    (cache / "engines").mkdir(parents=True)
    os.chown(cache / "engines", NOBODY, NOBODY)
    with pytest.raises(PreconditionError, match=r"engines: belongs to another user \(uid 65534\)") as caught:
        packages.fetch_engine(cache, "trixie", lambda _: None)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_changed_engine_is_unpacked_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = packages.fetch_engine(cache, "trixie", lambda _: None)
    copy = tmp_path / "lyra" / "engines" / engine.name
    shutil.copytree(engine, copy, symlinks=True)
    assert packages.fetch_engine(tmp_path / "lyra", "trixie", lambda _: None) == copy
    (copy / "bin" / "ip").unlink()
    (copy / "bin" / "ip").write_text("#!/bin/sh\n")
    (copy / "bin" / "ip").chmod(0o755)
    monkeypatch.setattr("lyra_tasks.engine.debian.packages.find_mirror", lambda: "http://127.0.0.1:9/debian")
    messages: list[str] = []
    with pytest.raises(PreconditionError, match="not reachable"):
        packages.fetch_engine(tmp_path / "lyra", "trixie", messages.append)
    assert not copy.exists() and "unpacking it again" in messages[0]
