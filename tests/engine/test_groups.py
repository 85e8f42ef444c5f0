"""Groups of checks: each in its own lab, in parallel as far as there is capacity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused

CONFIG = """
[[tests]]
name = "left is alone in its volume"
service = "web"
group = "left"
exec = "ls /data; echo left > /data/left"

[[tests]]
name = "left meets right"
group = "left"
run = "touch left; for i in $(seq 100); do test -e right && exit 0; sleep 0.1; done; exit 1"
timeout = "30s"

[[tests]]
name = "right meets left"
group = "right"
run = "touch right; for i in $(seq 100); do test -e left && exit 0; sleep 0.1; done; exit 1"
timeout = "30s"

[[tests]]
name = "right finds nothing of left"
service = "web"
group = "right"
exec = "ls /data; test ! -e /data/left"
"""
ALONE = """
[[tests]]
name = "left is alone"
group = "left"
run = "mkdir busy && sleep 1 && rmdir busy"

[[tests]]
name = "right is alone"
group = "right"
run = "mkdir busy && sleep 1 && rmdir busy"
"""


@pytest.fixture
def with_tests(built_project: Project) -> Iterator[Callable[[str], Project]]:
    config = built_project.root / ".lyra.toml"
    original = config.read_text()

    def write(text: str) -> Project:
        config.write_text(original + text)
        return built_project

    yield write
    config.write_text(original)


def newest(project: Project) -> Path:
    return sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent


def test_groups_run_in_parallel_in_separate_labs(with_tests: Callable[[str], Project], engine: Engine) -> None:
    project = with_tests(CONFIG)
    result = project.lyra("test")
    assert result.code == 0, result.text
    assert "8 of 8 checks passed" in result.out
    assert "ok   left: left meets right" in result.out
    assert labs(engine) == []
    run = newest(project)
    document: dict[str, Any] = json.loads((run / "tests.json").read_text())
    assert [check["group"] for check in document["checks"]] == [*[""] * 4, "left", "left", "right", "right"]
    assert set(document["usage"]) == {"web", "left/web", "right/web"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["services"]) == {"web", "left/web", "right/web"}
    assert {event["service"] for event in metrics["events"] if event["kind"] == "ready"} == set(metrics["services"])
    assert "response:200" in (run / "logs" / "web.log").read_text()
    for directory in ("logs", "logs/left", "logs/right"):
        assert (run / directory / "web.log").is_file()
        assert (run / directory / "_all.log").is_file()
    lines = project.lyra("logs", "--service", "web", "--run", run.name)
    assert lines.code == 0, lines.text
    assert "left/web" in lines.out
    assert "right/web" in lines.out
    assert "left/web" not in project.lyra("logs", "--service", "right/web", "--run", run.name).text
    (bundle,) = promoted(project)
    assert (bundle / "evidence" / "logs" / "right" / "web.log").is_file()


def promoted(project: Project) -> list[Path]:
    result = project.lyra("promote", "verify")
    assert result.code == 0, result.text
    return project.bundles()


def test_groups_without_capacity_run_in_sequence(with_tests: Callable[[str], Project]) -> None:
    project = with_tests(ALONE)
    arguments = ("test", "--only", "left", "--only", "right")
    cpus = json.loads(project.lyra("engine.status", "--json").out or "{}").get("cpus")
    share = str(0.3 / (cpus or 2))
    plan = json.loads(project.lyra(*arguments, "--dry-run", "--json", LYRA_HOST_SHARE=share).out)
    assert [[group["group"] for group in batch] for batch in plan["batches"]] == [["left"], ["right"]]
    result = project.lyra(*arguments, LYRA_HOST_SHARE=share)
    assert result.code == 0, result.text
    assert "2 of 2 checks passed" in result.out


def test_fail_fast_stops_other_groups(with_tests: Callable[[str], Project]) -> None:
    more = "".join(f'\n[[tests]]\nname = "later {n}"\ngroup = "right"\nrun = "sleep 1"\n' for n in range(30))
    project = with_tests(f'\n[[tests]]\nname = "fails"\ngroup = "left"\nrun = "false"\n{more}')
    result = project.lyra("test", "--fail-fast", "--only", "left", "--only", "right")
    assert result.code == 5, result.text
    assert len(json.loads((newest(project) / "tests.json").read_text())["checks"]) < 25


def test_service_exit_fails_only_its_group(with_tests: Callable[[str], Project]) -> None:
    project = with_tests(
        '\n[[tests]]\nname = "end"\nservice = "web"\ngroup = "left"\nexec = "kill -9 -1; sleep 5; true"\n'
        '\n[[tests]]\nname = "never run"\nservice = "web"\ngroup = "left"\nexec = "true"\n'
    )
    refused(project.lyra("test"), 5, "web was killed", hint=True)
    checks = json.loads((newest(project) / "tests.json").read_text())["checks"]
    assert [check["outcome"] for check in checks if not check["group"]] == ["passed"] * 4
    assert ("the services run", "failed") in [(check["name"], check["outcome"]) for check in checks if check["group"]]
    assert "never run" not in [check["name"] for check in checks]


def test_keep_running_allows_only_one_group(with_tests: Callable[[str], Project], engine: Engine) -> None:
    project = with_tests(ALONE)
    refused(
        project.lyra("test", "--keep-running"),
        2,
        "Only one group of checks can be left running",
        "--only left or --only right",
    )
    running = project.lyra("test", "--keep-running", "--only", "left")
    assert running.code == 0, running.text
    assert labs(engine) != []
    project.clean()
    assert labs(engine) == []
