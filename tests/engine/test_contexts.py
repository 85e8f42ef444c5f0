"""Tests that an image holds what its context holds, after every edit.

A longer run: `LYRA_TEST_EDITS=500 ./inv matrix --engine 26.1-classic --path tests/engine/test_contexts.py`;
`LYRA_TEST_SEED` chooses other edits.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, repository
from tests.engine import machines
from tests.engine.trees import RandomTree, describe_differences, read_image_nodes
from tests.thorough import keep

EDITS = int(os.environ.get("LYRA_TEST_EDITS", "10"))
SEED = int(os.environ.get("LYRA_TEST_SEED", "1"))
IMAGES = ("a", "b", "c", "d", "e")


@pytest.fixture(params=keep(1, ["engine", "remote builder"]))
def builder_variables(
    request: pytest.FixtureRequest, tmp_path: Path, engine: Engine, box: sandbox.Sandbox
) -> Iterator[dict[str, str]]:
    """Return the variables that make the engine itself build, or a builder that is reached over the network."""
    if request.param == "engine":
        yield {}
        return
    if engine.facts.store != "containerd":
        pytest.skip("classic image stores cannot export images from a builder")
    client = {**box.environment(), "BUILDX_CONFIG": str(tmp_path / "buildx")}
    with machines.serve_buildkit(box) as address:
        machines.run_buildx(client, box, "create", "--name", "far", "--driver", "remote", address)
        yield {"BUILDX_CONFIG": client["BUILDX_CONFIG"], "LYRA_BUILDER": "far"}


@pytest.fixture
def trees(
    tmp_path: Path, cache: Path, box: sandbox.Sandbox, builder_variables: dict[str, str]
) -> Iterator[tuple[Project, dict[str, RandomTree]]]:
    """Create a project whose images copy a random tree each."""
    generator = random.Random(SEED)
    root = tmp_path / "project"
    trees = {name: RandomTree(root / name, generator) for name in IMAGES}
    for name in IMAGES:
        (root / name / "Dockerfile").write_text("FROM scratch\nCOPY . /x\n")
    tables = "".join(f'[images.{name}]\ncontext = "{name}"\n' for name in IMAGES)
    (root / ".lyra.toml").write_text(f'schema = 1\n[project]\nname = "tiny"\n{tables}')
    project = repository(root, tmp_path, cache, box)
    project.environment.update(builder_variables)
    yield project, trees
    project.clean()


def image_differences(engine: Engine, image: str, tree: RandomTree) -> list[str]:
    """Return how an image differs from the tree that it was built from."""
    container = engine.api.create_container(image, ["none"])["Id"]
    try:
        chunks, _ = engine.api.get_archive(container, "/x")
        return describe_differences(tree.nodes(), read_image_nodes(io.BytesIO(b"".join(chunks))))
    finally:
        engine.api.remove_container(container)


@pytest.mark.parametrize("last_edit", keep(1, sorted({EDITS, max(EDITS, 25)})))
def test_image_holds_its_context_after_every_edit(
    trees: tuple[Project, dict[str, RandomTree]], engine: Engine, last_edit: int
) -> None:
    project, by_name = trees
    edits = 0
    while edits <= last_edit:
        outcome = project.lyra("build", "--json")
        assert outcome.code == 0, outcome.text
        images = json.loads(outcome.out)["images"]
        differences = {
            name: found
            for name, tree in by_name.items()
            if (found := image_differences(engine, images[name]["reference"], tree))
        }
        assert not differences, (edits, {name: (found, by_name[name].log[-3:]) for name, found in differences.items()})
        for tree in by_name.values():
            tree.edit()
            edits += 1
