"""Engines that hold objects of a project and cannot be asked: `clean`, `status` and `doctor` name them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.records.cleanup import CleanupReport
from tests.conftest import Outcome, Project, ours, tiny_project
from tests.engine.relay import relayed
from tests.faults import refused, unprivileged
from tests.thorough import keep

NOBODY = 65534


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Iterator[Project]:
    """A project with `sandbox = "auto"` whose images are in an engine behind a socket of its own."""
    directory = tmp_path_factory.mktemp("built")
    project = tiny_project(directory, busybox, cache, None)
    project.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "auto"\n\n[images.web]')
    project.commit("a private engine where there is no other")
    with relayed(box.socket, directory) as relay:
        project.environment.update({**box.environment(), "DOCKER_HOST": relay.address})
        outcome = project.lyra("build")
        assert outcome.code == 0, outcome.text
        yield project
        project.clean()


def socket_of(project: Project) -> Path:
    """Return the socket by which the project reaches its engine."""
    return Path(project.environment["DOCKER_HOST"].removeprefix("unix://"))


def require_named(outcome: Outcome, project: Project, engine: Engine, reason: str) -> None:
    """Assert that an outcome names the engine, how it was reached, why it was not asked, and how much is there."""
    count = len(ours(engine))
    assert count, "something of the project is there"
    text = " ".join(outcome.text.split())
    for part in (engine.facts.id, str(socket_of(project)), reason, f"{count} object(s) of this project"):
        assert part in text, f"{part!r} is not in:\n{outcome.text}"
    assert "nothing is left" not in text


@pytest.mark.parametrize("command", ["clean", "status", "doctor"])
def test_stopped_engine_is_named_with_its_objects(built: Project, engine: Engine, command: str) -> None:
    path = socket_of(built)
    path.rename(path.with_name("stopped.sock"))
    try:
        outcome = built.lyra(command)
    finally:
        path.with_name("stopped.sock").rename(path)
    require_named(outcome, built, engine, "no such socket")
    assert outcome.code == (0 if command == "status" else 3), outcome.text
    assert sandbox.find_sandbox(next(built.state.glob("tiny-*"))) is None, "no other engine is started"


@pytest.mark.parametrize("command", keep(2, ["build", "clean", "status", "doctor"]))
def test_forbidden_engine_is_named_with_its_objects(built: Project, engine: Engine, command: str) -> None:
    path = socket_of(built)
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o600)
    try:
        outcome = unprivileged(built, command)
    finally:
        os.chown(path, 0, 0)
    if command == "build":
        refused(outcome, 3, "permission denied", "Run `sudo usermod -aG ")
    else:
        require_named(outcome, built, engine, "permission denied")
        assert outcome.code == (0 if command == "status" else 3), outcome.text
    assert sandbox.find_sandbox(next(built.state.glob("tiny-*"))) is None, "no other engine is started"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Iterator[Project]:
    """A project whose image is in an engine of its own."""
    project = tiny_project(tmp_path_factory.mktemp("private"), busybox, cache, None)
    project.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[images.web]')
    project.commit("a private engine")
    try:
        outcome = project.lyra("build")
        assert outcome.code == 0, outcome.text
        yield project
    finally:
        for state in project.state.glob("*-*"):
            sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture
def other(private: Project) -> sandbox.Sandbox:
    """Another engine on this machine."""
    box = sandbox.find_sandbox(next(private.state.glob("tiny-*")))
    assert box is not None
    return box


def test_engine_that_the_shell_does_not_point_at_is_named(
    built: Project, engine: Engine, other: sandbox.Sandbox
) -> None:
    here = f"unix://{other.socket}"
    cleaned = built.lyra("clean", DOCKER_HOST=here)
    require_named(cleaned, built, engine, f"this command uses the engine at unix://{other.socket}")
    refused(cleaned, 3, f"export DOCKER_HOST={built.environment['DOCKER_HOST']}")
    report = CleanupReport.model_validate_json(Path(cleaned.out.rpartition("report: ")[2].strip()).read_bytes())
    assert not report.clean
    assert [(item.engine, item.objects) for item in report.not_asked] == [(engine.facts.id, len(ours(engine)))]
    for command, code in (("status", 0), ("doctor", 0)):
        outcome = built.lyra(command, DOCKER_HOST=here)
        require_named(outcome, built, engine, f"this command uses the engine at unix://{other.socket}")
        assert outcome.code == code, outcome.text
    document = json.loads(built.lyra("clean", "--dry-run", "--json", DOCKER_HOST=here).out)
    assert [item["engine"] for item in document["not_asked"]] == [engine.facts.id]


def test_engine_with_nothing_of_the_project_is_not_named(
    built: Project, engine: Engine, other: sandbox.Sandbox
) -> None:
    built.clean()
    cleaned = built.lyra("clean", DOCKER_HOST=f"unix://{other.socket}")
    assert cleaned.code == 0, cleaned.text
    assert engine.facts.id not in cleaned.text + built.lyra("status", DOCKER_HOST=f"unix://{other.socket}").text


def test_former_private_engine_of_a_renamed_project_is_named(private: Project, other: sandbox.Sandbox) -> None:
    private.replace(".lyra.toml", 'name = "tiny"', 'name = "renamed"')
    try:
        for command in ("clean", "status", "doctor"):
            outcome = private.lyra(command)
            text = "".join(outcome.text.split())  # lines are wrapped anywhere
            assert "thisproject'sprivateengine" in text, outcome.text
            assert f"exportDOCKER_HOST=unix://{other.socket}" in text, outcome.text
    finally:
        private.replace(".lyra.toml", 'name = "renamed"', 'name = "tiny"')
    assert sandbox.find_sandbox(other.state) is not None, "the former engine still runs"


def test_private_engine_beside_another_one_is_named_until_its_data_are_removed(
    private: Project, box: sandbox.Sandbox
) -> None:
    assert private.lyra("engine.down").code == 0
    (state,) = private.state.glob("tiny-*")
    (engine_id,) = sandbox.read_engine_ids(state)
    private.replace(".lyra.toml", '"always"', '"never"')
    try:
        elsewhere = f"unix://{box.socket}"
        outcome = private.lyra("clean", DOCKER_HOST=elsewhere)
        refused(outcome, 3, engine_id, "private engine", "no such socket", "engine.up")
        everything = private.lyra("clean", "--all", "--yes", DOCKER_HOST=elsewhere)
        assert everything.code == 0, everything.text
        assert private.lyra("clean", DOCKER_HOST=elsewhere).code == 0
    finally:
        private.replace(".lyra.toml", '"never"', '"always"')


def test_moved_checkout_says_what_stayed_where_it_was(tmp_path: Path, busybox: Path, cache: Path) -> None:
    project = tiny_project(tmp_path, busybox, cache, None)
    project.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[images.web]')
    project.commit("a private engine")
    moved = replace(project, root=tmp_path / "moved")
    try:
        assert project.lyra("build").code == 0
        project.root.rename(moved.root)
        for command in ("status", "doctor", "clean"):
            outcome = moved.lyra(command)
            text = "".join(outcome.text.split())
            assert str(project.root) in text, outcome.text
            assert "clean--gone" in text, outcome.text
        gone = moved.lyra("clean", "--gone", "--yes")
        assert gone.code == 0, gone.text
        assert str(project.root) not in "".join(moved.lyra("status").text.split())
    finally:
        for state in project.state.glob("*-*"):
            sandbox.shut_down_sandbox(state, purge=True)
