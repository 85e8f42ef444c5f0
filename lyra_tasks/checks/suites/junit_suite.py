"""Checks of kind `junit`: any test runner, by the JUnit file that it writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.checks.commands import build_lab_variables
from lyra_tasks.checks.suites.suite import Outcome, SuiteRun, run_suite_command
from lyra_tasks.config.services import to_argv
from lyra_tasks.documents import DocumentError, read_document
from lyra_tasks.redaction import create_redactor

JUNIT_REPORT = "junit.xml"
_MAX_REPORT_BYTES = 64 << 20


def run_junit(run: SuiteRun, root: Path, directory: Path) -> str:
    """Run a command and read the JUnit file that it writes; return the problem that no test explains."""
    suite = run.test.junit
    if suite is None:
        return ""
    file = root / suite.file
    file.unlink(missing_ok=True)  # of an earlier run
    completed = run_suite_command(run, to_argv(suite.run), root, build_lab_variables(run.lab), directory)
    if completed.exit_code is None:
        return f"the command did not end within {run.test.effective_timeout:g} s; its last lines: {completed.tail}"
    try:
        data = read_document(file, _MAX_REPORT_BYTES)
        cases = list(_read_cases(data))
    except FileNotFoundError:
        return f"the command has not written {suite.file}; exit code {completed.exit_code}: {completed.tail}"
    except DocumentError as error:
        return f"{suite.file}: {error}"
    (directory / JUNIT_REPORT).write_bytes(create_redactor(run.lab.plan.secret_values).redact_bytes(data))
    for case in cases:
        _add_case(run, case)
    if completed.exit_code and not run.counts["failed"] and not run.counts["error"]:
        return f"exit code {completed.exit_code}; its last lines: {completed.tail}"
    return ""


def _read_cases(data: bytes) -> Iterator[ET.Element]:
    """Yield the cases of a JUnit file; DocumentError if it is none, or has a document type, which could name files."""
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise DocumentError("not a JUnit file: it has a document type")
        root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities to expand
    except UnicodeDecodeError as error:
        raise DocumentError("not valid UTF-8") from error
    except (ET.ParseError, RecursionError, ValueError) as error:
        raise DocumentError(f"not a JUnit file: {console.escape(error)}") from error
    if root.tag not in {"testsuites", "testsuite"}:
        raise DocumentError(f"not a JUnit file: its root is <{console.escape(root.tag)}>")
    yield from root.iter("testcase")


def _add_case(run: SuiteRun, case: ET.Element) -> None:
    name = ".".join(filter(None, (case.get("classname", ""), case.get("name", ""))))
    skipped = case.find("skipped")
    if skipped is not None:
        run.skip(name, skipped.get("message", "") or (skipped.text or "").strip())
        return
    outcome: Outcome = "passed"
    message, lines = "", list[str]()
    for tag, kind in (("failure", "failed"), ("error", "error")):
        problem = case.find(tag)
        if problem is not None:
            outcome = "failed" if kind == "failed" else "error"
            lines = (problem.text or "").strip("\n").splitlines()
            message = problem.get("message", "") or next((line for line in lines if line.strip()), "")
            break
    try:
        seconds = float((case.get("time") or "0").replace(",", ""))
    except ValueError:
        seconds = 0.0
    run.add(name, outcome, seconds if seconds < 1e9 else 0.0, message, lines)
