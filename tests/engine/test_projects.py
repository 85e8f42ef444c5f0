"""Projects of other kinds go the whole way: a Node service, a compiled program, a web framework with its store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import PROJECTS, Project, repository

IMAGES = {"compiled": ["sums/sums"], "flask": ["votes/store", "votes/votes"], "node": ["links/links"]}


def said(*command: str) -> str:
    """What a program of this machine says about itself; nothing if it is not there."""
    if shutil.which(command[0]) is None:
        return ""
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return "" if answer in {"null", "undefined"} else answer


def registry_settings() -> dict[str, str]:
    """The secret files with which builds reach the registries as this machine's own pip and npm do."""
    index = os.environ.get("PIP_INDEX_URL") or said("pip", "config", "get", "global.index-url")
    cert = os.environ.get("PIP_CERT") or said("pip", "config", "get", "global.cert")
    registry, cafile = said("npm", "config", "get", "registry"), said("npm", "config", "get", "cafile")
    pip = {"index-url": index, "cert": "/run/secrets/ca" if cert else ""}
    npm = {"registry": registry, "cafile": "/run/secrets/ca" if cafile else ""}
    return {
        "pip.conf": "[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items() if value),
        "npmrc": "".join(f"{key}={value}\n" for key, value in npm.items() if value),
        "ca.pem": Path(cert or cafile).read_text() if cert or cafile else "",
    }


@pytest.fixture(params=sorted(IMAGES))
def project(request: pytest.FixtureRequest, tmp_path: Path, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """A sample project as a git repository, with the session's engine."""
    root = tmp_path / request.param
    shutil.copytree(PROJECTS / request.param, root)
    (root / "secrets").mkdir()
    for name, text in registry_settings().items():
        (root / "secrets" / name).write_text(text)
    made = repository(root, tmp_path, cache, box)
    yield made
    made.clean()


@pytest.mark.usefixtures("named_contexts")
def test_it_is_built_tested_promoted_and_gone(project: Project, box: sandbox.Sandbox) -> None:
    first = project.lyra("build", timeout=500)
    assert first.code == 0, first.text
    project.commit("pin the bases")

    outcome = project.lyra("build", "test", "promote")
    assert outcome.code == 0, outcome.text
    (bundle,) = project.bundles()
    manifest = json.loads((bundle / "manifest.json").read_text())
    name = manifest["project"]
    assert sorted(f"{name}/{image['name']}" for image in manifest["images"]) == IMAGES[project.root.name]
    assert project.lyra("verify", str(bundle)).code == 0
    if name == "sums":
        published = "${SUMS_DATAGRAMS_PUBLISH:-127.0.0.1:8080}:8080/udp"
        assert published in (bundle / "deploy" / "compose.yaml").read_text()
        rehearsed = project.lyra("bundle.rehearse", bundle.name)
        assert rehearsed.code == 0, rehearsed.text
        assert "a datagram is answered with its checksum" in rehearsed.text
    assert left_of(name, box) != []

    project.clean()
    assert left_of(name, box) == []
    assert project.git("status", "--porcelain") == ""


def left_of(project: str, box: sandbox.Sandbox) -> list[str]:
    """What the engine still holds of a project, or of any run."""
    mine = ["--filter", "label=dev.lyra.run"]
    commands = [
        [kind, "ls", "--quiet", *mine, *(["--all"] if kind == "container" else [])]
        for kind in ("container", "volume", "network")
    ]
    commands.append(["image", "ls", "--quiet", "--filter", f"reference={project}/*"])
    found: list[str] = []
    for words in commands:
        command = [str(box.docker), *words]
        found += subprocess.run(command, env=box.environment(), capture_output=True, text=True).stdout.split()
    return found
