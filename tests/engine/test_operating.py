"""The commands of `PROMOTION.md`, as an operator pastes them: start, upgrade, roll back, remove."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.engine import sandbox
from tests.conftest import Project
from tests.engine.stacks import Node

VALUES = {"VALUE": "sesame-sesame", "FILE": "../../key"}


@pytest.fixture(scope="module")
def bundles(make_tiny: Callable[[], Project]) -> Iterator[list[Path]]:
    """Promote two versions; the newer one has another page and needs another variable."""
    project = make_tiny()
    for version in ("1.0.0", "1.1.0"):
        (project.root / "app/www/index.html").write_text(f"It is tiny. {version}\n")
        if version == "1.1.0":
            project.replace(
                ".lyra.toml",
                "TOKEN = {",
                'MOOD = { required = true, test_value = "good", description = "how it feels" }\nTOKEN = {',
            )
        project.commit(version)
        project.git("tag", f"v{version}")
        outcome = project.lyra("build", "test", "promote")
        assert outcome.code == 0, outcome.text
    yield sorted(project.bundles())
    project.clean()


@pytest.fixture(params=["trixie", "bookworm"])
def node(request: pytest.FixtureRequest, cache: Path, tmp_path: Path) -> Iterator[Node]:
    box = sandbox.launch_sandbox(tmp_path / "engine", cache=cache, suite=request.param)
    try:
        yield Node(box, tmp_path / "node")
    finally:
        sandbox.shut_down_sandbox(box.state, purge=True)


class Operator:
    """Someone who pastes the commands of a page, with the values that it leaves open."""

    def __init__(self, node: Node, bundles: list[Path]) -> None:
        self._node = node
        self._old, self._new = (node.place / bundle.name for bundle in bundles)
        for bundle in bundles:
            shutil.copytree(bundle, node.place / bundle.name)
        (node.place / "key").write_text("the key")

    def paste(self, bundle: Path, step: str, **values: str) -> str:
        """Run the commands of a step, such as `3. Configure`, in the directory where the page says."""
        page = (bundle / layout.SUMMARY_FILE).read_text()
        match = re.search(rf"(?ms)^## {re.escape(step)}\b.*?^```$\n(.*?)^```$", page)
        assert match, step
        lines = match[1].replace("/etc/tiny", str(self._node.place / "etc"))
        lines = lines.replace("/var/backups/tiny", str(self._node.place / "backup"))
        lines = lines.replace("/path/to/old", str(self._old)).replace("/path/to/new", str(self._new))
        for name, value in (VALUES | values).items():
            lines = re.sub(rf"(?<![$\w]){name}\b", value, lines) if name != "VALUE" else lines
        lines = re.sub(r"^read -r VALUE", f"VALUE={VALUES['VALUE']}", lines, flags=re.M)
        in_deploy = "In `deploy/`" in page[match.start() : match.start(1)]
        return self._node.run("sh", "-eux", "-c", lines, cwd=bundle / "deploy" if in_deploy else bundle)

    def ask(self, bundle: Path) -> tuple[str, str]:
        """Return the page that the service serves, and what the volume has."""
        script = "cat /www/index.html; cat /data/file"
        output = self._node.run(
            "docker", "compose", "exec", "-T", "web", "sh", "-c", script, cwd=bundle / "deploy"
        ).splitlines()
        return output[0], output[1]

    def write(self, bundle: Path, text: str) -> None:
        script = f"echo {text} > /data/file"
        self._node.run("docker", "compose", "exec", "-T", "web", "sh", "-c", script, cwd=bundle / "deploy")


def test_page_leads_from_start_to_removal(node: Node, bundles: list[Path]) -> None:
    operator = Operator(node, bundles)
    old, new = (node.place / bundle.name for bundle in bundles)
    for step in ("1. Trust", "2. Load", "3. Configure"):
        operator.paste(old, step)
    with (old / "deploy/.env").open("a") as file:
        file.write(f"WEB_HTTP_PUBLISH={node.box.address}:8090\n")
    for step in ("4. Start", "5. Is it up"):
        operator.paste(old, step)
    operator.write(old, "first")
    assert operator.ask(old) == ("It is tiny. 1.0.0", "first")
    for step in ("1. Trust", "2. Load"):
        output = operator.paste(new, step)
    assert f"cp -p {old}/deploy/.env .env\n" in output
    assert "  set in that .env:\n    MOOD: how it feels\n" in output
    assert "MOOD: new\n" in output and "sesame" not in output
    shutil.copy(old / "deploy/.env", new / "deploy/.env")
    with (new / "deploy/.env").open("a") as file:
        file.write("MOOD=good\n")
    assert "every required value is set" in operator.paste(new, "6. Upgrade")
    operator.paste(new, "5. Is it up")
    assert operator.ask(new) == ("It is tiny. 1.1.0", "first")
    operator.write(new, "second")
    (image,) = json.loads((new / layout.MANIFEST_FILE).read_text())["images"]
    _, reference, digest = operator.paste(new, "9. Is it the right one").split()
    assert reference == "tiny/web:1.1.0"
    assert digest in {image["config_digest"], image["manifest_digest"]}
    operator.paste(new, "7. Roll back")
    assert operator.ask(old) == ("It is tiny. 1.0.0", "first"), "also the data"
    operator.paste(old, "5. Is it up")
    operator.paste(new, "8. Make room", OLDER="1.1.0")
    assert "1.1.0" not in node.run("docker", "image", "ls", "tiny/web", cwd=old)
