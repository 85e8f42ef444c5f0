"""Bases and build caches in a registry that only the engine can reach."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.processes import run_captured
from tests.conftest import Project
from tests.engine.registries import serving
from tests.faults import refused

CACHE = """
[builder]
cache_from = ["type=registry,ref=REGISTRY/cache/{image}"]
cache_to = ["type=registry,ref=REGISTRY/cache/{image},mode=max"]
"""


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry"), cache, box=box) as host:
        yield host


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project], inner: str, box: sandbox.Sandbox) -> Iterator[Project]:
    """Yield the tiny project on a base from the registry."""
    project = make_tiny()
    project.replace("app/Dockerfile", "FROM scratch\nCOPY bin /bin\n", f"FROM {inner}/team/base:1\n")
    push(box, project, f"{inner}/team/base:1", "first")
    yield project
    project.clean()


def docker(box: sandbox.Sandbox, *arguments: str, directory: Path | None = None) -> str:
    result = run_captured([box.docker, *arguments], environment=box.environment(), directory=directory)
    assert result.returncode == 0, result.stderr
    return result.stdout


def push(box: sandbox.Sandbox, project: Project, reference: str, text: str) -> None:
    """Build a base, push it to the registry and remove it from the engine."""
    directory = project.root / "app"
    (directory / "Dockerfile.base").write_text(f"FROM scratch\nCOPY bin /bin\nENV MADE_FOR={text}\n")
    docker(box, "buildx", "build", "--quiet", "--file", "Dockerfile.base", "--tag", reference, ".", directory=directory)
    docker(box, "push", "--quiet", reference)
    docker(box, "image", "rm", reference)
    (directory / "Dockerfile.base").unlink()


def locked_digest(project: Project) -> str:
    (pin,) = tomllib.loads((project.root / ".lyra.lock.toml").read_text())["bases"].values()
    return str(pin["digest"])


def recorded_digest(project: Project) -> str:
    (record,) = project.state.glob("*/images/web@*.json")
    (digest,) = json.loads(record.read_text())["bases"].values()
    return str(digest)


@pytest.mark.usefixtures("named_contexts")
def test_registry_base_is_pinned_until_update(project: Project, inner: str, box: sandbox.Sandbox) -> None:
    reference = f"{inner}/team/base:1"
    project.replace(".lyra.toml", "NAME = {", 'MADE_FOR = { default = "x", description = "of the base" }\nNAME = {')
    outcome = project.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    first = locked_digest(project)
    assert first.startswith("sha256:")
    assert recorded_digest(project) == first

    push(box, project, reference, "second")
    again = project.lyra("build", "--no-cache")
    assert again.code == 0, again.text
    assert (locked_digest(project), recorded_digest(project)) == (first, first)

    moved = project.lyra("lock.update")
    assert moved.code == 0, moved.text
    second = locked_digest(project)
    assert second != first
    refused(project.lyra("test"), 3, "its bases changed", "Run `lyra build` first")
    assert project.lyra("build").code == 0
    assert recorded_digest(project) == second


@pytest.mark.usefixtures("named_contexts")
def test_registry_cache_avoids_rebuild(project: Project, inner: str, box: sandbox.Sandbox, engine: Engine) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("the engine's own builder exports a cache only where its store is containerd's")
    config = project.root / ".lyra.toml"
    config.write_text(config.read_text() + CACHE.replace("REGISTRY", inner))
    first = project.lyra("build")
    assert first.code == 0, first.text
    assert "exporting cache to registry" in first.err
    docker(box, "builder", "prune", "--all", "--force")
    again = project.lyra("build")
    assert again.code == 0, again.text
    assert f"importing cache manifest from {inner}/cache/web" in again.err
    assert "CACHED" in again.err
    assert "unchanged" in again.out
