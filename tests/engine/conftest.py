"""What holds for every test module that shares the session's engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.connect import Engine
from tests.conftest import ours
from tests.engine import registries


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_for_the_next_module(shared_engine: Engine) -> Iterator[None]:
    """What a module leaves in the shared engine fails there, and not in whichever module comes next."""
    yield
    assert ours(shared_engine) == []


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[str]:
    """Host and port of a registry that lets Ada in."""
    with registries.running(tmp_path_factory.mktemp("registry"), cache) as host:
        yield host
