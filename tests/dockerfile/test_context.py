"""Tests of what counts as a change of a build context."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.models import Image
from lyra_tasks.dockerfile.context import ContextSnapshot, list_changes, list_touched
from lyra_tasks.dockerfile.input_hashes import scan_image

IMAGE = Image.model_validate({"context": "app"})


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Create a context with a file, a program, a link, an empty directory, and what the ignore file excludes."""
    app = tmp_path / "app"
    for directory in ("bin", "empty", "logs", "kept/logs"):
        (app / directory).mkdir(parents=True)
    for name, mode in {
        "Dockerfile": 0o644,
        "page": 0o644,
        "bin/run": 0o755,
        "logs/x": 0o644,
        "kept/logs/y": 0o644,
    }.items():
        (app / name).write_text(name)
        (app / name).chmod(mode)
    (app / "link").symlink_to("page")
    (app / ".dockerignore").write_text("logs\n**/*.tmp\nkept\n!kept/logs/y\n")
    return app


def scan(app: Path) -> ContextSnapshot:
    return scan_image(app.parent, IMAGE)


def test_context_has_files_links_and_directories(app: Path) -> None:
    names = [".dockerignore", "Dockerfile", "bin/", "bin/run", "empty/", "kept/", "kept/logs/", "kept/logs/y", "link"]
    assert list(scan(app).digests) == [*names, "page"], "without `logs`"


def turn_into_directory(app: Path) -> None:
    (app / "page").unlink()
    (app / "page").mkdir()


def replace_keeping_times(app: Path) -> None:
    before = (app / "page").stat()
    (app / "page").write_text("PAGE")
    os.utime(app / "page", ns=(before.st_atime_ns, before.st_mtime_ns))


def retarget(app: Path) -> None:
    (app / "link").unlink()
    (app / "link").symlink_to("PAGE")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda app: (app / "page").chmod(0o600), ("page",)),
        (lambda app: (app / "bin/run").chmod(0o4755), ("bin/run",)),
        (lambda app: (app / "empty").chmod(0o700), ("empty/",)),
        (lambda app: (app / "new").mkdir(), ("new/",)),
        (lambda app: (app / "empty").rmdir(), ("empty/",)),
        (lambda app: (app / "page").rename(app / "page2"), ("page", "page2")),
        (lambda app: os.mkfifo(app / "pipe"), ("pipe",)),
        (lambda app: (app / "kept/logs/y").write_text("z"), ("kept/logs/y",)),
        (turn_into_directory, ("page", "page/")),
        (replace_keeping_times, ("page",)),
        (retarget, ("link",)),
    ],
)  # fmt: skip
def test_change_that_the_builder_sees_changes_the_hash(
    app: Path, change: Callable[[Path], None], names: tuple[str, ...]
) -> None:
    before = scan(app)
    change(app)
    after = scan(app)
    assert list_changes(before.digests, after.digests) == names
    assert before.digest != after.digest
    assert set(names) >= set(list_touched(before, after)) != set()


@pytest.mark.parametrize(
    "change",
    [
        lambda app: (app / "logs/x").write_text("other"),
        lambda app: (app / "page.tmp").write_text("x"),
        lambda app: os.utime(app / "page", (1, 1)),
        lambda app: app.chmod(0o700),
        lambda app: os.setxattr(app / "page", "user.note", b"x"),
    ],
)
def test_what_no_image_holds_keeps_the_hash(app: Path, change: Callable[[Path], None]) -> None:
    before = scan(app).digest
    change(app)
    assert scan(app).digest == before


def write_twice(app: Path) -> None:
    (app / "page").write_text("other")
    (app / "page").write_text("page")


def come_and_go(app: Path) -> None:
    (app / "bin/passing").write_text("x")
    (app / "bin/passing").unlink()


def come_and_go_at_the_top(app: Path) -> None:
    (app / "passing").mkdir()
    (app / "passing").rmdir()


@pytest.mark.parametrize(
    ("change", "names"), [(write_twice, ("page",)), (come_and_go, ("bin/",)), (come_and_go_at_the_top, ("./",))]
)
def test_undone_change_is_noticed(app: Path, change: Callable[[Path], None], names: tuple[str, ...]) -> None:
    before = scan(app)
    time.sleep(0.02)  # file times of the kernel advance only every 1 to 10 ms
    change(app)
    after = scan(app)
    assert before.digest == after.digest
    assert list_touched(before, after) == names
    assert before.stamp != after.stamp


def test_excluded_files_touch_nothing(app: Path) -> None:
    before = scan(app)
    time.sleep(0.02)
    (app / "bin/x.tmp").write_text("x")
    (app / "logs/new").write_text("x")
    after = scan(app)
    assert list_touched(before, after) == ()
    (app / "bin/y.tmp").write_text("y")
    (app / "bin/x.tmp").replace(app / "bin/y.tmp")
    assert list_touched(after, scan(app)) == ()
