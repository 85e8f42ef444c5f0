"""Run checks of all kinds: `http` and `tcp` from outside, `exec` inside, `log`, `stage`, `structure`, `run`."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lyra_tasks import console
from lyra_tasks.checks.commands import build_lab_variables, check_command, check_structure
from lyra_tasks.checks.context import TestRun
from lyra_tasks.checks.description import describe_check
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.checks.stages.run import StageBuild, StageOutcome, build_stages
from lyra_tasks.checks.suites.junit_suite import run_junit
from lyra_tasks.checks.suites.pytest_suite import run_pytest
from lyra_tasks.checks.suites.suite import SuiteRun
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.documents import DocumentError, parse_foreign_json
from lyra_tasks.engine.client.exec import exec_command
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.errors import LyraError, StaleError
from lyra_tasks.lab.admission import count_parallel_builds, list_reservations
from lyra_tasks.lab.build_slots import find_slots_directory, hold_build_slots
from lyra_tasks.lab.http_client import accepts_tcp_connection, open_http_response
from lyra_tasks.lab.service import LOCAL_LISTENER_HINT, CheckTarget
from lyra_tasks.processes import call_with_timeout
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

T = TypeVar("T")

_MAX_EXCERPT_CHARS = 400
_MAX_RESPONSE_BYTES = 1024**2
_MIN_CONNECT_TIMEOUT_S = 0.05
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def run_check(lab: Lab, group: PlannedGroup, test: Test, test_run: TestRun) -> CheckResult:
    """Run one check; a check that fails or cannot be run is a result, not an exception.

    Stages are built together, by `build_stages`.
    """
    return evaluate_check(test, partial(_find_problem, lab, group, test, test_run), lab.plan.secret_values)


def run_stage_checks(lab: Lab, group: PlannedGroup, tests: Sequence[Test], test_run: TestRun) -> dict[str, CheckResult]:
    """Build the stages of some checks in one parallel bake, and return the results by name.

    With fail-fast, a check that was cancelled since another one failed has no result.
    """
    builds = [
        StageBuild(
            test.name, test_run.stages[test.name], test_run.result_directory(group, test), test.effective_timeout
        )
        for test in tests
    ]
    work, reserved = test_run.work, list_reservations(lab.engine)
    with hold_build_slots(
        find_slots_directory(work),
        count_parallel_builds(test_run.capacity.cpus, reserved),
        len(builds),
        f"{work.config.project.name} (pid {os.getpid()})",
        lab.cancellation.raise_if_cancelled,
    ) as lock_handles:
        outcomes = build_stages(lab, builds, stops_at_failure=test_run.options.fail_fast, lock_handles=lock_handles)
    return {
        test.name: _create_stage_result(test, outcomes[test.name], lab.plan.secret_values)
        for test in tests
        if test.name in outcomes
    }


def run_suite_check(
    lab: Lab, group: PlannedGroup, test: Test, test_run: TestRun, report: Callable[[CheckResult], None]
) -> CheckResult:
    """Run the tests of a suite, report each of them, and return the result of the suite as a whole."""
    suite = SuiteRun(test, lab, report)
    root, directory = test_run.work.root, test_run.result_directory(group, test)

    def find_problem() -> str:
        directory.mkdir(parents=True, exist_ok=True)
        if test.pytest is not None:
            return run_pytest(suite, root, directory, fail_fast=test_run.options.fail_fast)
        return run_junit(suite, root, directory)

    return suite.summarize(evaluate_check(test, find_problem, lab.plan.secret_values))


def _create_stage_result(test: Test, outcome: StageOutcome, secret_values: Iterable[str]) -> CheckResult:
    def find_problem() -> str:
        if outcome.error is not None:
            raise outcome.error
        return outcome.problem

    result = evaluate_check(test, find_problem, secret_values)
    return result.model_copy(update={"seconds": outcome.seconds, "details": list(outcome.details)})


def evaluate_check(test: Test, find_problem: Callable[[], str], secret_values: Iterable[str]) -> CheckResult:
    """Return the result of a check whose problem, or an empty string, `find_problem` returns."""
    started = time.monotonic()
    outcome: Literal["passed", "failed", "error"]
    try:
        problem = find_problem()
        outcome = "failed" if problem else "passed"
    except StaleError:  # the files changed under the check: its result would say nothing about them
        raise
    except (LyraError, OSError, http.client.HTTPException) as error:
        problem = f"could not be run: {error or type(error).__name__}"
        outcome = "error"
    return CheckResult(
        name=test.name,
        kind=test.kind,
        group=test.group,
        service=test.service or "",
        outcome=outcome,
        asked=console.sanitize(redact(describe_check(test), secret_values)),
        message=console.sanitize(redact(problem, secret_values)),
        seconds=round(time.monotonic() - started, 3),
    )


def _find_problem(lab: Lab, group: PlannedGroup, test: Test, test_run: TestRun) -> str:
    if test.service is not None and test.kind in _SERVICE_CHECKS:
        return check_service(lab.services[test.service].check_target(), test)
    root, directory = test_run.work.root, test_run.result_directory(group, test)
    if test.kind == "structure":
        image, path = group.images[test.image or ""], test.structure or ""
        program_directory = (root / path).parent
        return check_structure(
            lab, image, group.platform, test_run.write_input(path), program_directory, directory, test.effective_timeout
        )
    return check_command(test, root, build_lab_variables(lab), lab.plan.secret_values, lab.cancellation, directory)


def _check_http(target: CheckTarget, test: Test) -> str:
    method, _, path = str(test.http).partition(" ")
    address = target.http_address()
    headers = {key: _expand_variables(target, value) for key, value in test.headers.items()}
    body = _expand_variables(target, test.send).encode() if test.send is not None else None
    with open_http_response(address, method, path, test.timeout, body=body, headers=headers) as response:
        text = _read_prefix(response).decode(errors="replace")
        if response.status != test.status:
            return f"status {response.status}, expected {test.status}; the response begins: {_shorten(target, text)}"
    if test.body is not None and test.body not in text:
        return f"the body does not contain {test.body!r}; it begins: {_shorten(target, text)}"
    if test.json_ is not None:
        try:
            document = parse_foreign_json(text)
        except DocumentError:
            return f"the body is not JSON; it begins: {_shorten(target, text)}"
        return _first_difference(target, document, test.json_, "$")
    return ""


def _read_prefix(response: http.client.HTTPResponse) -> bytes:
    """Return the first part of a body."""
    data = bytearray()
    while len(data) < _MAX_RESPONSE_BYTES and (chunk := response.read1(_MAX_RESPONSE_BYTES - len(data))):
        data += chunk
    if response.length and len(data) < _MAX_RESPONSE_BYTES:
        raise http.client.IncompleteRead(bytes(data), response.length)
    return bytes(data)


def _check_exec(target: CheckTarget, test: Test) -> str:
    try:
        code, output = call_with_timeout(
            test.timeout,
            lambda: exec_command(
                target.engine,
                target.container_id,
                to_argv(test.exec or []),
                timeout=test.timeout,
                secret_values=target.secret_values,
            ),
        )
    except TimeoutError:
        return f"the command did not end within {test.timeout:g} s"
    if code != test.exit_code:
        return f"exit code {code}, expected {test.exit_code}; it printed: {_shorten(target, output)}"
    if test.output is not None and test.output not in output:
        return f"the output does not contain {test.output!r}; it is: {_shorten(target, output)}"
    return ""


def _check_tcp(target: CheckTarget, test: Test) -> str:
    address = target.address(test.tcp or 0)

    deadline = time.monotonic() + test.timeout

    def is_open() -> bool:
        seconds_left = max(_MIN_CONNECT_TIMEOUT_S, deadline - time.monotonic())
        return target.cancellation.is_cancelled or accepts_tcp_connection(
            address, seconds_left, may_be_proxy=target.engine.may_proxy_ports
        )

    if wait_until(is_open, test.timeout):
        return ""
    return f"nothing listens on port {test.tcp} within {test.timeout:g} s, {LOCAL_LISTENER_HINT}"


def _check_log(target: CheckTarget, test: Test) -> str:
    pattern, read_lines = re.compile(str(test.log)), target.open_log()
    deadline = time.monotonic() + test.timeout

    def has_match() -> bool:
        lines = itertools.takewhile(lambda _: time.monotonic() < deadline, read_lines())
        return target.cancellation.is_cancelled or any(map(pattern.search, lines))

    if wait_until(has_match, test.timeout):
        return ""
    return f"no line matches {test.log!r} within {test.timeout:g} s"


_SERVICE_CHECKS = {"http": _check_http, "exec": _check_exec, "tcp": _check_tcp, "log": _check_log}


def check_service(target: CheckTarget, test: Test) -> str:
    """Run a check of a service; return the problem, or an empty string."""
    return _SERVICE_CHECKS[test.kind](target, test)


def _first_difference(target: CheckTarget, actual_value: Any, expected_value: Any, path: str) -> str:
    """Return the first difference, ignoring keys that `expected_value` does not have."""
    if isinstance(expected_value, dict) and isinstance(actual_value, dict):
        for key, value in expected_value.items():
            if key not in actual_value:
                return f"{path}.{key} is missing"
            if problem := _first_difference(target, actual_value[key], value, f"{path}.{key}"):
                return problem
        return ""
    actual, expected = (_shorten(target, json.dumps(item)) for item in (actual_value, expected_value))
    return "" if actual_value == expected_value else f"{path} is {actual}, expected {expected}"


def _expand_variables(target: CheckTarget, text: str) -> str:
    """Replace `${NAME}` by the value in the service's environment, so that checks need not repeat secrets."""
    return _VARIABLE.sub(lambda match: target.environment.get(match[1], match[0]), text)


def _shorten(target: CheckTarget, text: str) -> str:
    """Return the beginning of a text; secrets are redacted first, since a truncated one would not be recognised."""
    text = console.sanitize(redact(text.strip(), target.secret_values))
    return text if len(text) <= _MAX_EXCERPT_CHARS else f"{text[:_MAX_EXCERPT_CHARS]}…"
