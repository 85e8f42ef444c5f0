"""Which changes of files rules of a development environment are told of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.service_models import ChangeRule
from lyra_tasks.develop.changes import ChangeTracker, FileChanges
from lyra_tasks.develop.reactions import ServiceRule
from lyra_tasks.versions.git import run_git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run_git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("dist/\n*.log\n")
    for name in ("app/a.py", "app/deep/b.py", "other/c.py", "dist/out.js", "promotion/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def tracker(root: Path, *paths: str, ignore: tuple[str, ...] = ()) -> ChangeTracker:
    rule: dict[str, Any] = {"paths": list(paths), "ignore": list(ignore), "action": "restart"}
    return ChangeTracker(root, root / "promotion", [ServiceRule("web", ChangeRule.model_validate(rule))])


def test_only_changes_after_the_first_look_count(root: Path) -> None:
    watched = tracker(root, "app")
    assert watched.find_changes() == FileChanges()
    (root / "app" / "a.py").write_text("new")
    (root / "app" / "new.py").write_text("")
    (root / "app" / "deep" / "b.py").unlink()
    (root / "other" / "c.py").write_text("new")
    assert watched.find_changes() == FileChanges(("app/a.py", "app/new.py"), ("app/deep/b.py",))
    assert watched.find_changes() == FileChanges()


def test_file_that_is_saved_without_a_change_does_not_count(root: Path) -> None:
    watched = tracker(root, "app")
    (root / "app" / "a.py").write_text("app/a.py")
    os.utime(root / "app" / "a.py", (1, 1))
    assert watched.find_changes() == FileChanges()


def test_temporary_ignored_and_promoted_files_do_not_count(root: Path) -> None:
    watched = tracker(root, ".", ignore=("**/*.tmp",))
    for name in ("app/a.py.tmp", "app/x.log", "promotion/x.py", "dist/out.js"):
        (root / name).write_text("new")
    assert watched.find_changes() == FileChanges()


def test_directory_that_git_ignores_counts_if_a_rule_names_it(root: Path) -> None:
    watched = tracker(root, "dist")
    (root / "dist" / "out.js").write_text("new")
    (root / "dist" / "sub").mkdir()
    (root / "dist" / "sub" / "more.js").write_text("new")
    assert watched.find_changes() == FileChanges(("dist/out.js", "dist/sub/more.js"))


def test_directories_to_watch_exist(root: Path) -> None:
    assert tracker(root, "app/**/*.py", "nowhere/at/all", "other/c.py").directories == {
        root / "app", root, root / "other",
    }  # fmt: skip


def test_later_change_of_the_same_file_wins() -> None:
    first, second = FileChanges(("a", "b"), ("c",)), FileChanges(("c",), ("a",))
    assert first.join(second) == FileChanges(("b", "c"), ("a",))
