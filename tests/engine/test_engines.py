"""A short way through the words on each of the other engines; `./inv matrix` runs all engine tests on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests import engines
from tests.conftest import Project, tiny_project
from tests.engine.machines import Machine


@pytest.fixture(params=[name for name, kind in engines.ENGINES.items() if kind != engines.chosen()])
def there(
    request: pytest.FixtureRequest, tmp_path: Path, busybox: Path, cache: Path
) -> Iterator[tuple[Machine, Project]]:
    """An engine that is not the session's, and the tiny project on it."""
    kind = engines.ENGINES[request.param]
    box = sandbox.launch_sandbox(tmp_path / "engine", cache=cache, suite=kind.suite, store=kind.store)
    try:
        yield Machine(box, request.param), tiny_project(tmp_path, busybox, cache, box)
    finally:
        sandbox.shut_down_sandbox(tmp_path / "engine", purge=True)


def test_all_words_in_one_line_leave_a_whole_bundle_and_nothing_else(there: tuple[Machine, Project]) -> None:
    machine, project = there
    done = project.lyra("build", "test", "promote", "create")
    assert done.code == 0, done.text
    assert "4 of 4 checks passed" in done.out
    assert project.lyra("dev.exec", "--", "sh", "-c", "echo to errors >&2; exit 7").code == 7
    cleaned = project.lyra("verify", "clean")
    assert cleaned.code == 0, cleaned.text
    assert machine.left() == ""
