"""Bases and caches that lie in a registry, which the engine alone reaches."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
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


@pytest.fixture
def project(make_tiny: Callable[[], Project], inner: str) -> Iterator[Project]:
    """The tiny project, on a base out of the registry."""
    made = make_tiny()
    made.replace("app/Dockerfile", "FROM scratch\nCOPY bin /bin\n", f"FROM {inner}/team/base:1\n")
    yield made
    made.clean()


def docker(box: sandbox.Sandbox, *words: str, folder: Path | None = None) -> str:
    done = subprocess.run([box.docker, *words], env=box.environment(), cwd=folder, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def push(box: sandbox.Sandbox, project: Project, reference: str, text: str) -> None:
    """A base under this name, in the registry and no longer in the engine."""
    folder = project.root / "app"
    (folder / "Dockerfile.base").write_text(f"FROM scratch\nCOPY bin /bin\nENV MADE_FOR={text}\n")
    docker(box, "buildx", "build", "--quiet", "--file", "Dockerfile.base", "--tag", reference, ".", folder=folder)
    docker(box, "push", "--quiet", reference)
    docker(box, "image", "rm", reference)
    (folder / "Dockerfile.base").unlink()


def locked(project: Project) -> str:
    (pin,) = tomllib.loads((project.root / ".lyra.lock.toml").read_text())["bases"].values()
    return str(pin["digest"])


def built_on(project: Project) -> str:
    (record,) = project.state.glob("*/images/web@*.json")
    (digest,) = json.loads(record.read_text())["bases"].values()
    return str(digest)


@pytest.mark.usefixtures("named_contexts")
def test_a_base_in_a_registry_is_pinned_and_stays_until_the_lock_is_moved(
    project: Project, inner: str, box: sandbox.Sandbox
) -> None:
    reference = f"{inner}/team/base:1"
    push(box, project, reference, "first")
    project.replace(".lyra.toml", "NAME = {", 'MADE_FOR = { default = "x", description = "of the base" }\nNAME = {')
    outcome = project.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    first = locked(project)
    assert first.startswith("sha256:")
    assert built_on(project) == first

    push(box, project, reference, "second")
    again = project.lyra("build", "--no-cache")
    assert again.code == 0, again.text
    assert (locked(project), built_on(project)) == (first, first)

    moved = project.lyra("bases.update")
    assert moved.code == 0, moved.text
    second = locked(project)
    assert second != first
    refused(project.lyra("test"), 3, "its bases changed", "run `build` first")
    assert project.lyra("build").code == 0
    assert built_on(project) == second


@pytest.mark.usefixtures("named_contexts")
def test_what_was_built_is_not_built_again_where_the_registry_has_the_cache(
    project: Project, inner: str, box: sandbox.Sandbox, engine: Engine
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("the engine's own builder exports a cache only where its store is containerd's")
    push(box, project, f"{inner}/team/base:1", "third")
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
