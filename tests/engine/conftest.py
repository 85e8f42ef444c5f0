"""What holds for every test module that shares the session's engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import ours
from tests.engine import registries


@pytest.fixture
def named_contexts(engine: Engine) -> None:
    """For projects that name their bases in FROM alone: older engines take one only as a build argument, and say so."""
    if engine.facts.release < (23, 0):
        pytest.skip("this engine takes a base only as a build argument")


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_for_the_next_module(shared_engine: Engine) -> Iterator[None]:
    """What a module leaves in the shared engine fails there, and not in whichever module comes next."""
    yield
    assert ours(shared_engine) == []


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[str]:
    """Host and port of a registry that lets Ada in."""
    with registries.serving(tmp_path_factory.mktemp("registry"), cache, users=registries.ADA) as host:
        yield host
