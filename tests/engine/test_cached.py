"""Results that are used again: same inputs on the same engine, with the run that they come from."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused

STAGES = """
FROM scratch AS checked
COPY bin /bin
COPY unit /unit
RUN ["/bin/sh", "/unit/run"]

FROM scratch AS results
COPY --from=checked /results /

"""
UNIT = """\
/bin/busybox mkdir -p /results
cat /proc/sys/kernel/random/uuid > /results/once
"""
TESTS = """
[[tests]]
name = "the unit tests pass"
image = "web"
stage = "results"
group = "unit"

[[tests]]
name = "another environment is healthy"
service = "web"
http = "GET /"
group = "other"
"""
HOST = """
[[tests]]
name = "this machine agrees"
run = "echo run >> $LYRA_TEST_RUNS"
group = "host"
"""
UNIT_TITLE, OTHER_TITLE = "unit: the unit tests pass", "other: another environment is healthy"


@pytest.fixture(scope="module")
def tested(make_tiny: Callable[[], Project]) -> Iterator[tuple[Project, dict[str, Any]]]:
    """Return a project whose checks have all passed, and the results of that first run."""
    project = make_tiny()
    dockerfile = project.root / "app" / "Dockerfile"
    dockerfile.write_text(STAGES + dockerfile.read_text())
    (project.root / "app" / "unit").mkdir()
    (project.root / "app" / "unit" / "run").write_text(UNIT)
    (project.root / ".gitignore").write_text(".lyra/\npromotion/\n")
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(TESTS)
    project.commit("checks")
    first = run_tests(project)
    assert cached(first) == {}
    yield project, first
    project.clean()


@pytest.fixture
def project(tested: tuple[Project, dict[str, Any]]) -> Iterator[Project]:
    """Return the same project, whose files are restored afterwards."""
    project, _ = tested
    yield project
    project.git("checkout", "--quiet", "--", ".")


def run_tests(project: Project, *arguments: str, **more: Any) -> dict[str, Any]:
    """Run `build test`, which must succeed, and return the results."""
    result = project.lyra("build", "test", "--json", *arguments, **more)
    assert result.code == 0, result.text
    document: dict[str, Any] = json.loads(result.out[result.out.index('{\n  "checks"') :])
    return document


def cached(document: dict[str, Any]) -> dict[str, str]:
    """Return the runs that results come from, by the titles of the checks."""
    return {title(check): check["cached_from"] for check in document["checks"] if check["cached_from"]}


def title(check: dict[str, Any]) -> str:
    return f"{check['group']}: {check['name']}" if check["group"] else check["name"]


def results_file(project: Project, document: dict[str, Any]) -> str:
    (check,) = (check for check in document["checks"] if title(check) == UNIT_TITLE)
    return Path(str(document["directory"]), str(check["directory"]), "results", "once").read_text()


def newest_results(project: Project) -> dict[str, Any]:
    """Return the results of the newest run, whether it has passed or not."""
    file = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1]
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def origins(document: dict[str, Any]) -> dict[str, str]:
    """Return the runs that have run the checks, by their titles."""
    return {title(check): check["cached_from"] or document["run"] for check in document["checks"]}


def test_unchanged_set_is_cached_and_promoted(tested: tuple[Project, dict[str, Any]], engine: Engine) -> None:
    project, first = tested
    second = run_tests(project)
    assert cached(second) == {title(check): first["run"] for check in first["checks"]}
    assert second["run"] != first["run"] and second["passed"]
    assert second["usage"] == first["usage"] and second["rules"] == first["rules"]
    assert results_file(project, second) == results_file(project, first)
    directory = Path(second["directory"])
    for name in ("logs/web.log", "logs/_all.log", "logs/other/web.log"):
        assert (directory / name).read_bytes() == Path(first["directory"], name).read_bytes()
    third = run_tests(project)
    assert set(cached(third).values()) == {first["run"]}, "the run that has run them"
    assert labs(engine) == []
    promoted = project.lyra("promote")
    assert promoted.code == 0, promoted.text
    (bundle,) = project.bundles()
    assert project.lyra("verify", str(bundle)).code == 0
    assert f"in run `{first['run']}`" in (bundle / "PROMOTION.md").read_text()
    assert f"in run {first['run']}" in (bundle / "report.html").read_text()
    names = {
        element.attrib["value"]
        for element in ET.parse(bundle / "evidence" / "tests.xml").iter("property")
        if element.attrib["name"] == "cached_from"
    }
    assert names == {first["run"]}
    (tests := bundle / "evidence" / "tests.json").chmod(0o644)
    tests.write_text(tests.read_text().replace(f'"cached_from": "{first["run"]}"', '"cached_from": ""', 1))
    refused(project.lyra("verify", str(bundle)), 6, "tests.json")


def test_only_changed_part_is_run_again_and_no_failure_is_cached(project: Project) -> None:
    first = origins(run_tests(project))
    project.replace("app/unit/run", "mkdir", "mkdir -v")
    second = run_tests(project)
    assert set(cached(second)) == first.keys() - {UNIT_TITLE}, "no image has changed"
    project.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good night"')
    for _ in range(2):
        result = project.lyra("test")
        refused(result, 5, "the config is in place")
        assert cached(newest_results(project)) == {UNIT_TITLE: second["run"], OTHER_TITLE: first[OTHER_TITLE]}, (
            "one check of a group has changed"
        )
        assert result.text.count("(cached)") == 2, "the stage and the other group"
        assert f"from {first[OTHER_TITLE]}" in result.text
    project.replace(".lyra.toml", 'body = "Good night"', 'body = "Good morning"')
    assert cached(run_tests(project)) == origins(second)
    project.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good"')
    project.replace("app/motd.txt", "Good morning", "Good evening")
    assert cached(run_tests(project)) == {}, "the context of the stage, and the config of a service"


def test_checks_on_this_machine_are_never_cached(project: Project, tmp_path: Path) -> None:
    run_tests(project)
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(HOST)
    runs = tmp_path / "runs"
    for number in (1, 2):
        document = run_tests(project, LYRA_TEST_RUNS=str(runs))
        assert runs.read_text() == "run\n" * number
    assert "host: this machine agrees" not in cached(document)
    assert {UNIT_TITLE, OTHER_TITLE, "the page is there"} <= set(cached(document))


def test_evidence_that_was_edited_is_not_used_again(project: Project) -> None:
    first = run_tests(project)
    (once,) = project.state.glob(f"*/evidence/{first['run']}/checks/*/results/once")
    once.chmod(0o644)
    once.write_text("edited")
    second = run_tests(project)
    assert UNIT_TITLE not in cached(second) and OTHER_TITLE in cached(second)
    (evidence,) = project.state.glob(f"*/evidence/{second['run']}/evidence.json")
    evidence.chmod(0o644)
    evidence.write_text(evidence.read_text().replace('"seconds": ', '"seconds": 1'))
    assert cached(run_tests(project)) == {}


def test_egress_is_never_cached(project: Project) -> None:
    config = project.root / ".lyra.toml"
    config.write_text(config.read_text().partition("\n[[tests]]")[0] + TESTS)
    project.replace(".lyra.toml", "limits = {", "egress = true\nlimits = {")
    with config.open("a") as file:
        file.write(
            '\n[[deviations]]\nrule = "container.egress"\nscope = "services.web"\nreason = "asks others"\n'
            'owner = "ada"\nexpires = 2030-01-01\n'
        )
    run_tests(project)
    assert set(cached(run_tests(project))) == {UNIT_TITLE}


def test_release_may_demand_fresh_tests(project: Project) -> None:
    with (project.root / ".lyra.toml").open("a") as file:
        file.write("\n[release]\nfresh_tests = true\n")
    earlier = run_tests(project)
    project.commit("a release")
    assert cached(run_tests(project)) != {}
    refused(project.lyra("release"), 3, "are from earlier runs. Run `lyra test --fresh`")
    fresh = run_tests(project, "--fresh")
    assert cached(fresh) == {}
    assert results_file(project, fresh) != results_file(project, earlier)
    released = project.lyra("release")
    assert released.code == 0, released.text
    assert cached(run_tests(project)) == dict.fromkeys(origins(fresh), fresh["run"]), "the newest run that has run them"
    refused(project.lyra("promote"), 3, "are from earlier runs", "Run `lyra test --fresh`")
