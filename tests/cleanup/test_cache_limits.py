"""What leaves the caches because nothing has used it for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lyra_tasks.cleanup.cache_limits import ROOT_FILE_SYSTEMS, measure_caches, remove_unused_cache
from lyra_tasks.cleanup.storage import describe_expired, measure_storage
from lyra_tasks.config.load import load_config
from lyra_tasks.engine.workspace import Workspace, open_workspace

DAY_S = 24 * 3600


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose caches may have 10 KiB of root file systems, used within 30 days."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "tiny"\n[resources]\ncache = "10k"\n')
    return open_workspace(load_config(tmp_path / ".lyra.toml"))


def add(path: Path, days: float, size: int = 10) -> Path:
    """Create a file that was used some days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    used_at = time.time() - days * DAY_S
    os.utime(path, (used_at, used_at))
    return path


def add_rootfs(work: Workspace, name: str, days: float, size: int = 10) -> Path:
    directory = work.paths.cache / "rootfs" / name
    add(directory / "rootfs.tar", days, size)
    os.utime(directory, (1, 1))
    add(work.paths.cache / "rootfs" / f"{name}.facts.json", days)
    add(work.paths.cache / "rootfs" / "hashes" / f"{name}.json", days)
    return directory


def names_left(work: Workspace) -> list[str]:
    return sorted(
        path.relative_to(work.paths.cache).as_posix() for path in work.paths.cache.rglob("*") if path.is_file()
    )


def test_what_nothing_has_used_for_a_month_goes(work: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    cache = work.paths.cache
    add_rootfs(work, "old", 40)
    add_rootfs(work, "new", 20)
    add(cache / "engines" / "trixie-1" / "contents.json", 90)
    add(cache / "engines" / "trixie-1.lock", 20)
    add(cache / "engines" / "sid-2" / "contents.json", 90)
    for engine in ("trixie-1", "sid-2"):
        os.utime(cache / "engines" / engine, (1, 1))
    for days in (20, 40):
        add(cache / "packages" / f"{days}.json", days)
        add(cache / "users" / f"{days}.json", days)
        add(work.paths.state / "scans" / "layers" / f"{days}.json", days)
    assert remove_unused_cache(work) > 0
    assert names_left(work) == [
        *("engines/trixie-1.lock", "engines/trixie-1/contents.json", "limits.stamp", "packages/20.json"),
        *("rootfs/hashes/new.json", "rootfs/new.facts.json", "rootfs/new/rootfs.tar", "users/20.json"),
    ]
    assert [path.name for path in (work.paths.state / "scans" / "layers").iterdir()] == ["20.json"]
    assert "Removed " in capsys.readouterr().err


def test_oldest_root_file_systems_go_beyond_the_limit_but_none_of_today(work: Workspace) -> None:
    kept = [add_rootfs(work, "today", 0, 12_000), add_rootfs(work, "now", 0.5, 12_000)]
    gone = [add_rootfs(work, "yesterday", 2, 100)]
    (expired,) = [usage.expired for usage in measure_caches(work) if usage.title == ROOT_FILE_SYSTEMS]
    assert [item.name for item in expired] == [str(path) for path in gone]
    remove_unused_cache(work)
    assert [path.is_dir() for path in (*kept, *gone)] == [True, True, False]


def test_caches_are_looked_at_once_a_day(work: Workspace) -> None:
    assert remove_unused_cache(work) == 0
    old = add_rootfs(work, "old", 40)
    assert remove_unused_cache(work) == 0
    assert old.is_dir()
    assert remove_unused_cache(work, is_due=True) > 0
    assert not old.exists()


def test_what_would_go_is_listed(work: Workspace) -> None:
    old = add_rootfs(work, "old", 40)
    rows = {row.title: row for row in measure_storage(work, None, with_caches=True)}
    assert rows[ROOT_FILE_SYSTEMS].expired == (str(old),)
    assert describe_expired(rows[ROOT_FILE_SYSTEMS]) == "1 of root file systems (10 B)"
    assert not describe_expired(rows["tests with evidence"])
