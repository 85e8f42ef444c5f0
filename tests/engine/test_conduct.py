"""How checks are run: commands on this machine, retries, rounds, fail-fast, and services that keep running."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import becomes, processes_with


def add(project: Project, text: str) -> None:
    """Append a check to the configuration."""
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(f"\n[[tests]]\n{text}\n")


def newest_run(project: Project) -> Path:
    """Return the directory of the newest test run."""
    return sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent


def results(project: Project) -> list[dict[str, Any]]:
    """Return the checks of the newest run."""
    checks: list[dict[str, Any]] = json.loads((newest_run(project) / "tests.json").read_text())["checks"]
    return checks


@pytest.fixture
def built(built_project: Project) -> Iterator[Project]:
    """Return a built project, whose configuration is restored afterwards."""
    yield built_project
    built_project.git("checkout", "--quiet", "--", ".")


def test_commands_are_checks(built: Project) -> None:
    """They get addresses, keep their output, are retried as configured, and leave no process."""
    (built.root / "ask.py").write_text(
        "import os, urllib.request\n"
        "print(urllib.request.urlopen(os.environ['LYRA_WEB_HTTP_URL']).read().decode())\n"
        "print(os.environ['LYRA_WEB_HTTP_ADDR'])\n"
    )
    add(built, 'name = "our own suite"\nrun = ["python3", "ask.py"]')
    add(built, 'name = "second time lucky"\nretry = 2\nrun = "test -e tried || { touch tried; exit 1; }"')
    add(built, 'name = "fails"\nrun = "echo it broke; exit 3"')
    add(built, 'name = "hangs"\ntimeout = "1s"\nrun = "sleep 41.41 & sleep 42.42"')
    result = built.lyra("test")
    assert result.code == 5, result.text
    assert "exit code 3; its last lines: it broke" in result.out
    assert "did not end within 1 s" in result.out
    assert "passed at attempt 2" in result.out
    assert {check["name"]: check["outcome"] for check in results(built) if check["outcome"] != "passed"} == {
        "fails": "failed", "hangs": "failed",
    }, result.text  # fmt: skip
    assert "It is tiny." in (newest_run(built) / "checks" / "our-own-suite" / "output.log").read_text()
    # a killed process does not end at once
    assert becomes(lambda: not processes_with("sleep\x0042.42") and not processes_with("sleep\x0041.41"), 2)
    lines = (newest_run(built) / "logs" / "_all.log").read_text().splitlines()
    stamps = [line.split()[0] for line in lines]
    assert stamps
    assert stamps == sorted(stamps), "the merged log is sorted by time"
    assert all(line.split()[1] == "web" for line in lines)


def test_repeat_requires_every_round_to_pass(built: Project) -> None:
    add(built, 'name = "only twice"\nrun = "test -e two && exit 1; test -e one && touch two; touch one"')
    result = built.lyra("test", "--only", "only twice", "--repeat", "3")
    assert result.code == 5
    assert [check["outcome"] for check in results(built)] == ["passed", "passed", "failed"]
    assert results(built)[2]["name"] == "only twice (round 3)"
    assert built.lyra("test", "--repeat", "none").code == 2


def test_fail_fast_stops_at_first_failure(built: Project) -> None:
    built.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is huge."')
    result = built.lyra("test", "--fail-fast")
    assert result.code == 5
    assert [check["outcome"] for check in results(built)] == ["failed"]


def test_run_with_exited_service_blocks_promotion(built: Project) -> None:
    add(built, 'name = "end"\nservice = "web"\nexec = "kill -9 -1; true"')
    assert built.lyra("test").code == 5
    promoted = built.lyra("promote")
    assert promoted.code == 3
    assert "The last test run failed" in promoted.err


def test_keep_running_lasts_until_clean(built: Project, engine: Engine) -> None:
    add(built, 'name = "hangs"\nservice = "web"\ntimeout = "1s"\nexec = "sleep 600"')
    result = built.lyra("test", "--keep-running", timeout=60)
    assert result.code == 5, result.text
    address = next(line.split(": ")[1] for line in result.out.splitlines() if "LYRA_WEB_HTTP_URL" in line)
    assert b"It is tiny." in urllib.request.urlopen(address, timeout=5).read()
    assert built.lyra("build").code == 0
    assert b"It is tiny." in urllib.request.urlopen(address, timeout=5).read(), "another task removed it"
    built.clean()
    assert [container for container in engine.api.containers(all=True) if "lyra-" in container["Names"][0]] == []
