"""Suites of the project: pytest with fixtures for the services, and other runners through their JUnit files."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Outcome, Project
from tests.faults import becomes, labs, processes_with, refused

SUITE = """
import socket
import pytest


def test_page(lyra):
    response = lyra["web"].http.get("/")
    assert response.status_code == 200
    assert "It is tiny." in response.text
    with socket.create_connection(lyra["web"].address("http"), 5):
        pass


@pytest.mark.parametrize("name", ["motd", "motd"])
def test_motd(lyra, name):
    assert "Good morning" in lyra["web"].http.get(f"/{name}.txt").text


def test_command(lyra):
    web = lyra["web"]
    assert web.exec("echo kept > /data/file && cat /data/file").stdout == "kept\\n"
    assert web.exec(["/bin/sh", "-c", "exit 3"]).exit_code == 3
    assert len(web.environment["TOKEN"]) == 32


def test_restart_keeps_data(lyra):
    web = lyra["web"]
    web.exec("echo kept > /data/file")
    web.restart()
    assert web.exec("cat /data/file").stdout == "kept\\n"
    assert web.http.get("/").ok
    assert web.wait_for_log("response:200")


@pytest.mark.skip(reason="not today")
def test_later(lyra):
    assert False
"""
BROKEN = """
def test_token(lyra):
    web = lyra["web"]
    web.http.get("/nothing-here.html")
    print("before the comparison")
    assert web.environment["TOKEN"] == "known"


def test_unknown_service(lyra):
    lyra["wbe"]


def test_page(lyra):
    assert lyra["web"].http.get("/").ok
"""
TESTS = """
[[tests]]
name = "api"
pytest = "tests/api"
group = "api"
"""
UNUSABLE = {
    "empty": ("", "pytest has found no test in tests/empty"),
    "import": ("import nothing_like_it", "No module named 'nothing_like_it'"),
    "exit": ("def test_stop():\n    import os\n    os._exit(7)\n", "pytest exited with code 7"),
    "ever": ("import time\n\n\ndef test_ever():\n    time.sleep(1000)\n", "did not end within 10 s"),
}
"""Suites by their directory: the text of the test, and why it cannot be run to its end."""
JUNIT = """
[[tests]]
name = "{name}"
junit = {{ run = "sh tests/{name}.sh", file = "report.xml" }}
group = "js"
"""
REPORT = """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="js">
<testcase classname="page" name="greets" time="0.25"/>
<testcase classname="page" name="waits"><skipped message="no clock"/></testcase>
{more}
</testsuite></testsuites>
"""

FailedRun = tuple[Outcome, Path, dict[str, dict[str, Any]]]


@pytest.fixture
def project(built_project: Project) -> Iterator[Project]:
    config = built_project.root / ".lyra.toml"
    original = config.read_text()
    (built_project.root / "tests" / "api").mkdir(parents=True, exist_ok=True)
    yield built_project
    config.write_text(original)


def write(project: Project, tests: str, **files: str) -> None:
    for path in (project.root / "tests" / "api").iterdir():
        path.unlink()
    for name, text in files.items():
        (project.root / "tests" / "api" / f"{name}.py").write_text(text)
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(tests)


def results(project: Project) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Return the directory of the newest run, and its results by name."""
    run = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent
    return run, {check["name"]: check for check in json.loads((run / "tests.json").read_text())["checks"]}


def test_each_test_of_pytest_is_a_check_until_it_is_changed(project: Project, engine: Engine) -> None:
    write(project, TESTS, test_web=SUITE)
    result = project.lyra("test")
    assert result.code == 0, result.text
    run, results_by_name = results(project)
    checks = {name: check for name, check in results_by_name.items() if check["group"] == "api"}
    assert list(checks) == [
        "api: test_web.py::test_page", "api: test_web.py::test_motd[motd0]", "api: test_web.py::test_motd[motd1]",
        "api: test_web.py::test_command", "api: test_web.py::test_restart_keeps_data", "api",
    ]  # fmt: skip
    assert {check["outcome"] for check in checks.values()} == {"passed"}
    assert checks["api"]["message"] == "5 passed, 1 skipped\nskipped: test_web.py::test_later: Skipped: not today"
    assert 0 < checks["api: test_web.py::test_page"]["seconds"] < checks["api"]["seconds"]
    assert "5 passed, 1 skipped" in (run / checks["api"]["directory"] / "output.log").read_text()
    assert not list(project.root.rglob(".pytest_cache")) and not list((project.root / "tests").rglob("__pycache__"))
    assert labs(engine) == []
    promoted = project.lyra("promote", "--dry-run")
    assert promoted.code == 0, promoted.text
    (project.root / "tests" / "api" / "conftest.py").write_text("")
    refused(project.lyra("promote", "--dry-run"), 3, "have not been tested")


@pytest.fixture(scope="module")
def failed(built_project: Project) -> FailedRun:
    """Run suites of which none passes; return the outcome, the directory of the run, and its results by name."""
    config = built_project.root / ".lyra.toml"
    original = config.read_text()
    tests = TESTS
    for name, (text, _) in UNUSABLE.items():
        (built_project.root / "tests" / name).mkdir(parents=True)
        (built_project.root / "tests" / name / "test_web.py").write_text(text)
        tests += TESTS.replace('"api"', f'"{name}"', 1).replace("tests/api", f"tests/{name}")
    (built_project.root / "tests" / "api").mkdir(exist_ok=True)
    write(built_project, tests + 'timeout = "10s"\n', test_web=BROKEN)
    try:
        return built_project.lyra("test", "--only", "api"), *results(built_project)
    finally:
        config.write_text(original)


def list_suites(project: Project) -> list[int]:
    """Return the process ids of suites, of the checks of this project alone."""
    return processes_with("lyra_tasks.pytest_plugin", project)


def test_failed_test_shows_traceback_log_and_no_secret(failed: FailedRun) -> None:
    result, run, checks = failed
    assert result.code == 5, result.text
    assert "9 of 10 check(s) failed: api: api: test_web.py::test_token" in result.err, result.text
    assert result.text.count("Traceback") == 1, "that of the suite with a wrong import"
    failure = checks["api: test_web.py::test_token"]
    assert failure["outcome"] == "failed" and "assert '***' == 'known'" in failure["message"]
    traceback, log = failure["details"]
    text = "\n".join(traceback["lines"])
    secrets = re.findall(r"(?<![0-9a-fx])[0-9a-f]{10,}", text + failure["message"] + result.text.replace(run.name, ""))
    assert secrets == [], "pytest may show only the beginning and the end of a secret"
    assert traceback["title"] == "traceback" and 'assert web.environment["TOKEN"] == "known"' in text
    assert "before the comparison" in text
    assert log["title"] == "web logged since the check began" and "response:404" in "\n".join(log["lines"])
    assert "'wbe' is no service; the services are: web" in checks["api: test_web.py::test_unknown_service"]["message"]
    assert checks["api: test_web.py::test_page"]["outcome"] == "passed"
    assert checks["api"]["message"] == "1 passed, 2 failed" and checks["api"]["outcome"] == "failed"
    assert "before the comparison" in (run / "report.html").read_text()
    assert "before the comparison" in (run / "tests.xml").read_text()


@pytest.mark.parametrize("name", UNUSABLE)
def test_suite_that_cannot_run_fails(failed: FailedRun, name: str) -> None:
    result, _, checks = failed
    assert checks[name]["outcome"] in {"failed", "error"}, result.text
    messages = [check["message"] for key, check in checks.items() if key == name or key.startswith(f"{name}: ")]
    assert any(UNUSABLE[name][1] in message for message in messages) and UNUSABLE[name][1] in result.text, result.text


def test_endless_test_is_named_and_ended(built_project: Project, failed: FailedRun) -> None:
    _, _, checks = failed
    assert checks["ever: test_web.py::test_ever"]["outcome"] == "error"
    assert checks["ever"]["seconds"] < 60
    assert list_suites(built_project) == []


def test_results_are_shown_as_they_come(project: Project) -> None:
    text = "import time\n\n\ndef test_first():\n    pass\n\n\ndef test_second():\n    time.sleep(600)\n"
    write(project, TESTS, test_web=text)
    running = project.start("test", "--only", "api")
    try:
        assert running.stdout is not None
        os.set_blocking(running.stdout.fileno(), False)
        descriptor, shown = running.stdout.fileno(), b""

        def is_shown() -> bool:
            nonlocal shown
            with suppress(BlockingIOError):
                shown += os.read(descriptor, 1 << 16)
            return b"test_first" in shown

        assert becomes(is_shown, 60)
        assert list_suites(project)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    finally:
        running.kill()
        running.communicate()
    assert list_suites(project) == []


def test_junit_file_of_other_runner(project: Project) -> None:
    more = '<testcase name="adds"><failure message="1 is not 2">at js.js:3\nat main</failure></testcase>'
    scripts = {
        "js": (
            f"curl --silent $LYRA_WEB_HTTP_URL/motd.txt\ncat > report.xml <<'END'\n{REPORT.format(more='')}END\n", ""
        ),
        "none": ("true", "has not written report.xml"),
        "fails": (f"cat > report.xml <<'END'\n{REPORT.format(more=more)}END\nexit 1\n", "1 is not 2"),
        "html": ("echo '<html/>' > report.xml", "not a JUnit file: its root is <html>"),
        "doctype": ("echo '<!DOCTYPE x><testsuite/>' > report.xml", "it has a document type"),
        "empty": ("echo '<testsuite/>' > report.xml", "no test was run"),
        "code": ("echo '<testsuite><testcase name=\"a\"/></testsuite>' > report.xml; exit 4", "exit code 4"),
    }  # fmt: skip
    for name, (text, _) in scripts.items():
        (project.root / "tests" / f"{name}.sh").write_text(text)
    write(project, "".join(JUNIT.format(name=name) for name in scripts))
    result = project.lyra("test", "--only", "js")
    problems = [problem for _, problem in scripts.values()]
    refused(result, 5, "at js.js:3", *problems, hint=False)
    run, checks = results(project)
    assert list(checks)[:2] == ["js: page.greets", "js"]
    assert checks["js: page.greets"]["seconds"] == 0.25
    assert checks["js"]["outcome"] == "passed"
    assert checks["js"]["message"] == "1 passed, 1 skipped\nskipped: page.waits: no clock"
    assert "page" in (run / checks["js"]["directory"] / "junit.xml").read_text()
    assert checks["fails: adds"]["details"][0]["lines"] == ["at js.js:3", "at main"]
    for name, (_, problem) in scripts.items():
        if problem:
            assert checks[name]["outcome"] != "passed", name
            shown = checks[name]["message"] + checks.get(f"{name}: adds", {"message": ""})["message"]
            assert problem in shown, name
