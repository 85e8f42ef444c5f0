"""Test further sample projects from build to promotion: Node.js, a compiled program, a web framework with a store."""

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


def read_setting(*command: str) -> str:
    """Return a setting that a program prints, or an empty text if it is not installed."""
    if shutil.which(command[0]) is None:
        return ""
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return "" if output in {"null", "undefined"} else output


def registry_settings() -> dict[str, str]:
    """Return the secret files that let builds use the package registries of this machine's pip and npm."""
    index = os.environ.get("PIP_INDEX_URL") or read_setting("pip", "config", "get", "global.index-url")
    cert = os.environ.get("PIP_CERT") or read_setting("pip", "config", "get", "global.cert")
    registry, cafile = read_setting("npm", "config", "get", "registry"), read_setting("npm", "config", "get", "cafile")
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
    repository_project = repository(root, tmp_path, cache, box)
    yield repository_project
    repository_project.clean()


@pytest.mark.thorough
@pytest.mark.usefixtures("named_contexts")
def test_sample_project_is_built_tested_promoted_cleaned(project: Project, box: sandbox.Sandbox) -> None:
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
        port_mapping = "${SUMS_DATAGRAMS_PUBLISH:-127.0.0.1:8080}:8080/udp"
        assert port_mapping in (bundle / "deploy" / "compose.yaml").read_text()
        rehearsal = project.lyra("bundle.rehearse", bundle.name)
        assert rehearsal.code == 0, rehearsal.text
        assert "a datagram is answered with its checksum" in rehearsal.text
    assert list_leftovers(name, box) != []

    project.clean()
    assert list_leftovers(name, box) == []
    assert project.git("status", "--porcelain") == ""


def list_leftovers(project: str, box: sandbox.Sandbox) -> list[str]:
    """Return the objects of a project, or of any run, in the engine."""
    filters = ["--filter", "label=dev.lyra.run"]
    commands = [
        [kind, "ls", "--quiet", *filters, *(["--all"] if kind == "container" else [])]
        for kind in ("container", "volume", "network")
    ]
    commands.append(["image", "ls", "--quiet", "--filter", f"reference={project}/*"])
    leftovers: list[str] = []
    for arguments in commands:
        command = [str(box.docker), *arguments]
        leftovers += subprocess.run(command, env=box.environment(), capture_output=True, text=True).stdout.split()
    return leftovers
