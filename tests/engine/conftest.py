"""Fixtures for the test modules that share the session's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.engine import registries

_DIRECTORY = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this directory as slow, and run them first: shorter files keep all workers busy to the end."""
    items.sort(key=lambda item: not item.path.is_relative_to(_DIRECTORY))
    for item in items:
        if item.path.is_relative_to(_DIRECTORY):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def named_contexts(engine: Engine) -> None:
    """Skip projects that name bases only in FROM: engines before 23.0 require a build argument."""
    if engine.facts.release < (23, 0):
        pytest.skip("this engine requires a build argument for a base")


@pytest.fixture(scope="module")
def shared(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return the tiny project for all tests of a module, cleaned up afterwards."""
    project = make_tiny()
    yield project
    project.clean()


@pytest.fixture
def project(shared: Project) -> Iterator[Project]:
    """Return the same project for one test; its files and its commits are restored afterwards."""
    start = shared.git("rev-parse", "HEAD").strip()
    yield shared
    shared.git("reset", "--quiet", "--hard", start)
    shared.git("clean", "--quiet", "--force", "-d")


@pytest.fixture(scope="module")
def built_project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return a tiny project whose image is built, for all tests of a module, cleaned up afterwards."""
    project = make_tiny()
    built = project.lyra("build")
    assert built.code == 0, built.text
    yield project
    project.clean()


@pytest.fixture(scope="module", autouse=True)
def no_leftovers(shared_engine: Engine) -> Iterator[None]:
    """Fail a module that leaves objects in the shared engine, instead of the next one."""
    yield
    assert ours(shared_engine) == []


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[str]:
    """Return host and port of a registry with the user Ada."""
    with registries.serving(tmp_path_factory.mktemp("registry"), cache, users=registries.ADA) as host:
        yield host
