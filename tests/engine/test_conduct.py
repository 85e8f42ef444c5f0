"""How checks are made: on this machine, again, often, only until one fails, and with a lab that stays."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import becomes, processes_with


def add(project: Project, text: str) -> None:
    """One more check at the end of the configuration."""
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(f"\n[[tests]]\n{text}\n")


def results(project: Project) -> list[dict[str, Any]]:
    """The checks of the newest run."""
    newest = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1]
    checks: list[dict[str, Any]] = json.loads(newest.read_text())["checks"]
    return checks


@pytest.fixture
def built(tiny: Project) -> Project:
    assert tiny.lyra("build").code == 0
    return tiny


def test_a_command_on_this_machine_is_told_where_the_services_are_and_its_output_is_kept(built: Project) -> None:
    (built.root / "ask.py").write_text(
        "import os, urllib.request\n"
        "print(urllib.request.urlopen(os.environ['LYRA_WEB_HTTP_URL']).read().decode())\n"
        "print(os.environ['LYRA_WEB_HTTP_ADDR'])\n"
    )
    add(built, 'name = "our own suite"\nrun = ["python3", "ask.py"]')
    result = built.lyra("test")
    assert result.code == 0, result.text
    (log,) = built.root.glob(".lyra/runs/*/checks/our-own-suite/output.log")
    assert "It is tiny." in log.read_text()


def test_a_command_that_fails_or_hangs_fails_its_check_and_leaves_no_process(built: Project) -> None:
    add(built, 'name = "fails"\nrun = "echo it broke; exit 3"')
    add(built, 'name = "hangs"\ntimeout = "1s"\nrun = "sleep 41.41 & sleep 42.42"')
    result = built.lyra("test", "--only", "fails", "--only", "hangs")
    assert result.code == 5
    assert "exit code 3; its last lines: it broke" in result.out
    assert "did not end within 1 s" in result.out
    # what is killed ends when the kernel comes to it
    assert becomes(lambda: not processes_with("sleep\x0042.42") and not processes_with("sleep\x0041.41"), 2)


def test_a_check_is_made_again_as_often_as_it_may_be(built: Project) -> None:
    add(built, 'name = "second time lucky"\nretry = 2\nrun = "test -e tried || { touch tried; exit 1; }"')
    result = built.lyra("test", "--only", "second time lucky")
    assert result.code == 0, result.text
    assert "passed at try 2" in result.out


def test_rounds_are_counted_and_each_must_pass(built: Project) -> None:
    add(built, 'name = "only twice"\nrun = "test -e two && exit 1; test -e one && touch two; touch one"')
    result = built.lyra("test", "--only", "only twice", "--repeat", "3")
    assert result.code == 5
    assert [check["outcome"] for check in results(built)] == ["passed", "passed", "failed"]
    assert results(built)[2]["name"] == "only twice (round 3)"
    assert built.lyra("test", "--repeat", "none").code == 2


def test_fail_fast_stops_at_the_first_check_that_fails(built: Project) -> None:
    built.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is huge."')
    result = built.lyra("test", "--fail-fast")
    assert result.code == 5
    assert [check["outcome"] for check in results(built)] == ["failed"]


def test_a_lab_that_stays_answers_until_clean_takes_it_away(built: Project, engine: Engine) -> None:
    add(built, 'name = "hangs"\nservice = "web"\ntimeout = "1s"\nexec = "sleep 600"')
    result = built.lyra("test", "--keep-running", timeout=60)
    assert result.code == 5, result.text
    address = next(line.split(": ")[1] for line in result.out.splitlines() if "LYRA_WEB_HTTP_URL" in line)
    assert b"It is tiny." in urllib.request.urlopen(address, timeout=5).read()
    assert built.lyra("build").code == 0
    assert b"It is tiny." in urllib.request.urlopen(address, timeout=5).read(), "another word took it away"
    built.clean()
    assert [each for each in engine.api.containers(all=True) if "lyra-" in each["Names"][0]] == []


def test_the_logs_of_all_services_are_merged_in_the_order_of_time(built: Project) -> None:
    assert built.lyra("test").code == 0
    (log,) = built.root.glob(".lyra/runs/*/logs/_all.log")
    stamps = [line.split()[0] for line in log.read_text().splitlines()]
    assert stamps
    assert stamps == sorted(stamps)
    assert all(line.split()[1] == "web" for line in log.read_text().splitlines())


def test_a_run_in_which_a_service_died_is_evidence_against_its_set(built: Project) -> None:
    add(built, 'name = "end"\nservice = "web"\nexec = "kill -9 -1; true"')
    assert built.lyra("test").code == 5
    promoted = built.lyra("promote")
    assert promoted.code == 3
    assert "the last test of this set failed" in promoted.err
