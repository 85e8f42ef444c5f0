"""Suites: the results of their tests, whatever names, texts and files their programs give."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.checks.suites.junit_suite import _add_case, _read_cases
from lyra_tasks.checks.suites.pytest_suite import _handle_event, _handle_line, _shorten_name
from lyra_tasks.checks.suites.suite import SuiteRun
from lyra_tasks.config.models import Test
from lyra_tasks.documents import DocumentError
from lyra_tasks.records.evidence import CheckResult

SECRET = "known-to-nobody"


def create_run(results: list[CheckResult]) -> SuiteRun:
    test = Test.model_validate({"name": "api", "pytest": "tests/api"})
    lab: Any = SimpleNamespace(plan=SimpleNamespace(secret_values=(SECRET,)))
    return SuiteRun(test, lab, results.append)


def summarize(run: SuiteRun, problem: str = "") -> tuple[str, str]:
    result = CheckResult(
        name="api", kind="pytest", service="", outcome="failed" if problem else "passed", message=problem
    )
    summary = run.summarize(result)
    return summary.outcome, summary.message


def test_names_are_unique_redacted_and_of_one_line() -> None:
    results: list[CheckResult] = []
    run = create_run(results)
    for name in ("test_a", "test_a", f"test_b[{SECRET}]", "test_c\x1b[2J\u202e", "x" * 1000, ""):
        run.add(name, "passed", -1.0, "", ())
    names = [result.name for result in results]
    assert len(set(names)) == len(names) and not any(SECRET in name for name in names)
    assert names[:3] == ["api: test_a", "api: test_a (2)", "api: test_b[***]"]
    assert names[3].isprintable() and len(names[4]) < 400
    assert all(result.seconds == 0 for result in results)


def test_suite_passes_only_with_tests_that_passed() -> None:
    run = create_run([])
    run.skip("test_later", f"not today, {SECRET}")
    assert summarize(run) == ("failed", "no test was run\n1 skipped\nskipped: test_later: not today, ***")
    run.add("test_a", "passed", 0.1, "", ())
    assert summarize(run)[0] == "passed"
    assert summarize(run, "exit code 3")[0] == "failed"
    run.add("test_b", "error", 0.1, f"no {SECRET}", [SECRET] * 1000)
    assert summarize(run) == ("failed", "1 passed, 1 error, 1 skipped\nskipped: test_later: not today, ***")


def test_details_of_a_test_are_bounded_and_redacted() -> None:
    results: list[CheckResult] = []
    create_run(results).add("test_a", "failed", 0.1, "m" * 10_000, [f"{SECRET} {'y' * 5000}"] * 1000)
    (detail,) = results[0].details
    assert len(results[0].message) == 2000 and len(detail.lines) == 200
    assert detail.lines[0].startswith("*** yyy") and len(detail.lines[0]) == 1001


@pytest.mark.parametrize(
    ("node", "path", "name"),
    [
        ("tests/api/test_x.py::test_y[1]", "tests/api", "test_x.py::test_y[1]"),
        ("tests/api/test_x.py::test_y", "tests/api/", "test_x.py::test_y"),
        ("tests/api/test_x.py::test_y", "tests/api/test_x.py", "test_y"),
        ("test_x.py::test_y", "tests/api", "test_x.py::test_y"),
        ("tests/api", "tests/api", "tests/api"),
    ],
)
def test_name_is_relative_to_the_suite(node: str, path: str, name: str) -> None:
    assert _shorten_name(node, path) == name


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"event": "finished"}',
        b"[" * 100_000,
        b'{"event": "finished", "lines": 3, "seconds": []}',
    ],
    ids=range(7),
)
def test_lines_that_the_plugin_does_not_write_do_no_harm(line: bytes) -> None:
    results: list[CheckResult] = []
    run = create_run(results)
    _handle_line(line, lambda event: _handle_event(run, "tests", event))
    assert {result.outcome for result in results} <= {"error"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a JUnit file"),
        (b"<testsuite>", "not a JUnit file"),
        (b"<html/>", "its root is <html>"),
        (b"\xff\xfe<\x00", "not valid UTF-8"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><testsuite/>", "document type"),
        (b"<a>" * 100_000, "not a JUnit file"),
    ],
    ids=range(6),
)
def test_damaged_junit_file_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        list(_read_cases(data))


def test_junit_cases_become_results() -> None:
    results: list[CheckResult] = []
    run = create_run(results)
    document = (
        b'<testsuites><testsuite><testcase classname="A" name="one" time="1,234.5"/>'
        b'<testcase name="two" time="soon"><error>first\nsecond</error></testcase>'
        b'<testcase name="three" time="nan"><failure message="3 is not 4"/></testcase>'
        b'<testcase name="four"><skipped>no clock</skipped></testcase></testsuite></testsuites>'
    )
    for case in _read_cases(document):
        _add_case(run, case)
    assert [(result.name, result.outcome, result.message, result.seconds) for result in results] == [
        ("api: A.one", "passed", "", 1234.5),
        ("api: two", "error", "first", 0.0),
        ("api: three", "failed", "3 is not 4", 0.0),
    ]
    assert results[1].details[0].lines == ["first", "second"] and results[2].details == []
    assert run.skipped == ["four: no clock"]
    assert isinstance(next(_read_cases(b"<testsuite><testcase/></testsuite>")), ET.Element)
