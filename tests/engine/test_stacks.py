"""From somebody else's compose file to a bundle, and to data that survives an upgrade on another engine.

`./inv check --thorough` carries one stack to the oldest engine, `./inv matrix` each to the oldest and the newest one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests import engines
from tests.conftest import Project
from tests.engine.stacks import SHOP, STACKS, Node, Stack, prepare, promote
from tests.images.saves import compressed_size
from tests.stand_ins import images
from tests.thorough import THOROUGH

RECEIVERS = {"20.10": "bookworm", "newest": "sid"}
IS_MATRIX = engines.VARIABLE in os.environ

pytestmark = [THOROUGH, pytest.mark.usefixtures("named_contexts")]


@dataclass(frozen=True)
class Promoted:
    """A stack, and the bundle of its first version."""

    stack: Stack
    project: Project
    bundle: Path

    def images(self) -> list[dict[str, Any]]:
        """Return the images in the manifest of the bundle."""
        documents: list[dict[str, Any]] = json.loads((self.bundle / "manifest.json").read_text())["images"]
        return documents


@pytest.fixture(scope="module", params=[pytest.param(stack, id=stack.name) for stack in STACKS])
def promoted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox
) -> Iterator[Promoted]:
    """Promote the first version of a stack, with the configuration that `init` writes and checks of its own."""
    stack: Stack = request.param
    project = prepare(stack, tmp_path_factory.mktemp("stack"), cache, box)
    try:
        yield Promoted(stack, project, promote(project, "1.0.0"))
    finally:
        project.clean()
        images.run_docker(box, "image", "rm", "--force", *stack.third_party)


def test_bundle_has_every_image_and_each_layer_once(
    promoted: Promoted, engine: Engine, box: sandbox.Sandbox, tmp_path: Path
) -> None:
    (archive,) = (promoted.bundle / "images").iterdir()
    compose = (promoted.bundle / "deploy" / "compose.yaml").read_text()
    names = {image["references"][0].partition(":")[0] for image in promoted.images()}
    assert names == {f"{promoted.stack.name}/{name}" for name in promoted.stack.images}
    assert all(f"image: {image['references'][0]}\n" in compose for image in promoted.images())
    digest = "manifest_digest" if engine.facts.store == "containerd" else "config_digest"
    saved = tmp_path / "saved.tar"
    images.run_docker(box, "save", "--output", str(saved), *(image[digest] for image in promoted.images()))
    with saved.open("rb") as file:
        assert archive.stat().st_size <= 1.02 * compressed_size(file)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_data_survives_upgrade_on_another_engine(
    promoted: Promoted, receiver: str, tmp_path: Path, cache: Path
) -> None:
    stack, project = promoted.stack, promoted.project
    if not IS_MATRIX and (stack, receiver) != (SHOP, "20.10"):
        pytest.skip("`./inv matrix` runs it")
    pack = pack_next_version(promoted, tmp_path)
    box = sandbox.launch_sandbox(tmp_path / "state", cache=cache, suite=RECEIVERS[receiver])
    try:
        node = Node(box, tmp_path)
        node.start(node.receive(promoted.bundle), stack)
        node.request(*stack.write)
        assert stack.data in node.request("GET", stack.path)
        assert stack.news not in node.request("GET", stack.path)
        upgraded = node.receive(pack)
        node.start(upgraded, stack)
        page = node.request("GET", stack.path)
        assert stack.data in page
        assert stack.news in page
        node.run("docker", "compose", "down", "--volumes", cwd=upgraded / "deploy")
    finally:
        sandbox.shut_down_sandbox(box.state, purge=True)
    assert project.git("status", "--porcelain") == ""


def pack_next_version(promoted: Promoted, tmp_path: Path) -> Path:
    """Promote the next version, and pack what the first one lacks."""
    project = promoted.project
    if not (promoted.bundle.parent / "1.1.0").exists():
        project.replace(*promoted.stack.edit)
        project.commit("next version")
        promote(project, "1.1.0")
    medium = tmp_path / "medium"
    medium.mkdir()
    outcome = project.lyra("bundle.pack", "1.1.0", "--since", "1.0.0", "--to", str(medium))
    assert outcome.code == 0, outcome.text
    (pack,) = medium.iterdir()
    full, delta = (sum(path.stat().st_size for path in place.rglob("*.tar")) for place in (promoted.bundle, pack))
    assert delta < full / 10
    return pack
