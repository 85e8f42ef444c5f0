"""status over the life of a project on the real engine: each word moves what it shows, it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.ownership import LABEL_PROJECT, LABEL_RUN
from tests.conftest import Project
from tests.engine.terminals import in_terminal


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    made = make_tiny()
    yield made
    made.clean()


def status(project: Project) -> dict[str, Any]:
    found = project.lyra("status", "--json")
    assert found.code == 0, found.text
    document: dict[str, Any] = json.loads(found.out)
    return document


def test_status_follows_project_to_bundle_and_back(project: Project, engine: Engine) -> None:
    fresh = status(project)
    assert [each["problem"] for each in fresh["images"]] == ["has not been built"]
    assert (fresh["next"], fresh["has_engine"], fresh["runs"]) == ("build", True, [])
    journal = next(project.state.glob("*")) / "journal.jsonl"
    assert not journal.exists(), "who looks leaves no trace"

    tested = project.lyra("build", "test", "--keep-running")
    assert tested.code == 0, tested.text
    running = status(project)
    (lab,) = running["labs"]
    (service,) = lab["services"]
    assert (lab["kind"], service["name"], service["state"]) == ("kept running", "web", "running")
    assert list(service["ports"]) == ["http"]
    assert 0 < service["memory"] < service["memory_limit"]
    assert 0 <= service["cpu"] <= 1
    assert running["leftovers"] == []
    assert (running["tested"]["passed"], running["tested"]["checks"], running["next"]) == (True, 4, "promote")

    promoted = project.lyra("promote")
    assert promoted.code == 0, promoted.text
    (bundle,) = project.bundles()
    done = status(project)
    assert (done["promoted"], done["newest"], done["next"]) == (bundle.name, bundle.name, "")
    assert [each["command"] for each in done["runs"]] == ["promote", "build test --keep-running"]

    project.replace("app/www/index.html", "It is tiny.", "It is small.")
    screen = " ".join(" ".join(in_terminal(project, "status", columns=80).screen).split())
    assert "stale: was built before its context changed" in screen
    assert "`build`: web was built before its context changed" in screen
    assert "uncommitted changes" in screen


def test_objects_of_no_lab_are_leftovers(project: Project, engine: Engine) -> None:
    (state,) = project.state.iterdir()
    labels = {LABEL_PROJECT: state.name, LABEL_RUN: "20200101t000000-abcdef"}
    engine.api.create_volume("lyra-20200101t000000-abcdef-web-data", labels=labels)
    copied = {"Image": engine.api.images(name="tiny/web")[0]["Id"], "Labels": {LABEL_PROJECT: state.name}}
    stranger = engine.api.create_container_from_config(copied, "copied")["Id"]
    try:
        found = status(project)
    finally:
        engine.api.remove_container(stranger)
        engine.api.remove_volume("lyra-20200101t000000-abcdef-web-data")
    assert found["leftovers"] == ["lyra-20200101t000000-abcdef-web-data"]
    assert found["next"] == "clean"


def test_status_without_engine_uses_files(project: Project) -> None:
    found = project.lyra("status", DOCKER_HOST="unix:///nowhere.sock")
    assert found.code == 0, found.text
    text = " ".join(found.out.split())
    assert "Cannot connect to a Docker engine" in text
    assert "stale: was built before its context changed" in text


def test_status_reports_deviation_from_unknown_rule(project: Project) -> None:
    entry = '\n[[deviations]]\nrule = "image.sise"\nscope = "*"\nreason = "x"\nowner = "a"\nexpires = 2099-01-01\n'
    config = project.root / ".lyra.toml"
    before = config.read_text()
    config.write_text(before + entry)
    try:
        said = project.lyra("status")
    finally:
        config.write_text(before)
    assert said.code == 0, said.text
    assert 'deviations[0].rule: unknown rule "image.sise"; did you mean "image.size"?' in said.err
