"""status over the life of a project on a real engine: it follows every task and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.inventory import LABEL_PROJECT
from lyra_tasks.engine.objects.ownership import LABEL_RUN
from tests.conftest import Project
from tests.engine.terminals import in_terminal


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    project = make_tiny()
    yield project
    project.clean()


def status(project: Project) -> dict[str, Any]:
    result = project.lyra("status", "--json")
    assert result.code == 0, result.text
    document: dict[str, Any] = json.loads(result.out)
    return document


def test_status_follows_project_to_bundle_and_back(project: Project, engine: Engine) -> None:
    initial = status(project)
    assert [image["problem"] for image in initial["images"]] == ["has not been built"]
    assert (initial["next_command"], initial["has_engine"], initial["runs"]) == ("build test promote", True, [])
    journal = next(project.state.glob("*")) / "journal.jsonl"
    assert not journal.exists(), "status must not write to the journal"

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
    assert (running["test"]["passed"], running["test"]["check_count"], running["next_command"]) == (True, 4, "promote")

    promoted = project.lyra("promote")
    assert promoted.code == 0, promoted.text
    (bundle,) = project.bundles()
    final = status(project)
    assert (final["promoted_version"], final["newest_version"], final["next_command"]) == (bundle.name, bundle.name, "")
    assert [run["command"] for run in final["runs"]] == ["promote", "build test --keep-running"]

    project.replace("app/www/index.html", "It is tiny.", "It is small.")
    screen = " ".join(" ".join(in_terminal(project, "status", columns=80).screen).split())
    assert "stale: was built before its context changed" in screen
    assert "`lyra build test promote`: web was built before its context changed" in screen
    assert "uncommitted changes" in screen


def test_objects_of_no_lab_are_leftovers(project: Project, engine: Engine) -> None:
    (state,) = project.state.iterdir()
    labels = {LABEL_PROJECT: state.name, LABEL_RUN: "20200101t000000-abcdef"}
    engine.api.create_volume("lyra-20200101t000000-abcdef-web-data", labels=labels)
    copied = {"Image": engine.api.images(name="tiny/web")[0]["Id"], "Labels": {LABEL_PROJECT: state.name}}
    container = engine.api.create_container_from_config(copied, "copied")["Id"]
    try:
        document = status(project)
    finally:
        engine.api.remove_container(container)
        engine.api.remove_volume("lyra-20200101t000000-abcdef-web-data")
    assert document["leftovers"] == ["lyra-20200101t000000-abcdef-web-data"]
    assert document["next_command"] == "clean"


def test_status_without_engine_uses_files(project: Project) -> None:
    result = project.lyra("status", DOCKER_HOST="unix:///nowhere.sock")
    assert result.code == 0, result.text
    text = " ".join(result.out.split())
    assert "Cannot connect to a Docker engine" in text
    assert "stale: was built before its context changed" in text


def test_status_reports_deviation_from_unknown_rule(project: Project) -> None:
    entry = '\n[[deviations]]\nrule = "image.sizes"\nscope = "*"\nreason = "x"\nowner = "a"\nexpires = 2099-01-01\n'
    config = project.root / ".lyra.toml"
    original = config.read_text()
    config.write_text(original + entry)
    try:
        result = project.lyra("status")
    finally:
        config.write_text(original)
    assert result.code == 0, result.text
    assert 'deviations[0].rule: unknown rule "image.sizes"; did you mean "image.size"?' in result.err
