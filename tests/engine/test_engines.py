"""Test the main commands on each of the other engines; `./inv matrix` runs all engine tests on all of them.

In the normal check, `test_stores.py` runs these commands on Engine 20.10 and the classic store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests import engines
from tests.conftest import Project, tiny_project
from tests.engine.machines import Machine
from tests.thorough import keep


@pytest.fixture(params=keep(0, [name for name, kind in engines.ENGINES.items() if kind != engines.chosen()]))
def other_engine(
    request: pytest.FixtureRequest, tmp_path: Path, busybox: Path, cache: Path
) -> Iterator[tuple[Machine, Project]]:
    """An engine other than that of the session, and the tiny project on it."""
    kind = engines.ENGINES[request.param]
    box = sandbox.launch_sandbox(tmp_path / "engine", cache=cache, suite=kind.suite, store=kind.store)
    try:
        yield Machine(box, request.param), tiny_project(tmp_path, busybox, cache, box)
    finally:
        sandbox.shut_down_sandbox(tmp_path / "engine", purge=True)


def test_all_commands_in_one_line_leave_only_a_bundle(other_engine: tuple[Machine, Project]) -> None:
    machine, project = other_engine
    outcome = project.lyra("build", "test", "promote", "create")
    assert outcome.code == 0, outcome.text
    assert "4 of 4 checks passed" in outcome.out
    assert project.lyra("dev.exec", "--", "sh", "-c", "echo to errors >&2; exit 7").code == 7
    cleaned = project.lyra("verify", "clean")
    assert cleaned.code == 0, cleaned.text
    assert machine.list_objects() == ""
