"""The checks: asked from outside (`http`, `tcp`), inside (`exec`), of the log, of an image, or by a command here."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lyra_tasks import console
from lyra_tasks.checks.commands import check_command, check_structure
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.checks.stages import PlannedStage, build_stage
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.engine.objects.containers import exec_command
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.service import accepts_tcp_connection, open_http_response
from lyra_tasks.records.evidence import CHECKS_DIRECTORY, CheckResult
from lyra_tasks.rules.secrets import redact

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.lab.lab import Lab, RunningService

T = TypeVar("T")

_MAX_EXCERPT_CHARS = 400
_MAX_RESPONSE_BYTES = 1 << 20  # bytes of an answer
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class CheckContext:
    """What checks are made with: the engine, the folders of project and run, stages by check.

    `kept` is, by check, the folder below `checks/` of the run's for what it brings.
    """

    engine: Engine
    owner: Owner
    root: Path
    run_directory: Path
    stages: Mapping[str, PlannedStage]
    result_directories: Mapping[str, str]

    def directory_for(self, group: PlannedGroup, test: Test) -> Path:
        """Where what a check of a group brings is kept."""
        return self.run_directory / CHECKS_DIRECTORY / group.label / self.result_directories[test.name]


def assign_result_directories(tests: Iterable[Test]) -> dict[str, str]:
    """By name, the folders of the checks that bring something: their names, as far as a file system takes them."""
    directories: dict[str, str] = {}
    for test in tests:
        if test.is_image_check or test.kind == "run":
            slug = re.sub(r"[^a-z0-9]+", "-", test.name.lower()).strip("-")[:60] or "check"
            duplicates = [name for name in directories.values() if name.rpartition("~")[0] == slug or name == slug]
            directories[test.name] = f"{slug}~{len(duplicates) + 1}" if duplicates else slug
    return directories


def run_check(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> CheckResult:
    """Make one check and say what was seen; it never raises for a check that fails."""
    started = time.monotonic()
    try:
        problem = _find_problem(lab, group, test, context)
        outcome: Literal["passed", "failed", "error"] = "failed" if problem else "passed"
    except (LyraError, OSError, http.client.HTTPException, OutOfTime) as error:
        problem, outcome = f"could not be made: {error or type(error).__name__}", "error"
    return CheckResult(
        name=test.name,
        kind=test.kind,
        service=test.service or "",
        outcome=outcome,
        message=_redact_all(lab, console.sanitize(problem)),
        seconds=round(time.monotonic() - started, 3),
    )


def _find_problem(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> str:
    if test.service is not None and test.kind in _SERVICE_CHECKS:
        return _SERVICE_CHECKS[test.kind](lab.services[test.service], test)
    if test.kind == "stage":
        return _check_stage(lab, group, test, context)
    if test.kind == "structure":
        return _check_structure(lab, group, test, context)
    return check_command(lab, test, context.root, context.directory_for(group, test))


def _check_stage(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> str:
    on_cancel = partial(lab.cancellation.on_cancel, after=test.effective_timeout)
    planned, directory = context.stages[test.name], context.directory_for(group, test)
    started = time.monotonic()
    problem = build_stage(planned, engine=context.engine, owner=context.owner, directory=directory, on_cancel=on_cancel)
    lab.cancellation.raise_if_cancelled()
    if problem and time.monotonic() - started >= test.effective_timeout:
        return f"the stage was not built within {test.effective_timeout:g} s; {problem}"
    return problem


def _check_structure(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> str:
    return check_structure(
        group.images[test.image or ""],
        context.root / (test.structure or ""),
        host=context.engine.host,
        platform=group.platform,
        directory=context.directory_for(group, test),
        timeout=test.effective_timeout,
        cancellation=lab.cancellation,
    )


def _check_http(service: RunningService, test: Test) -> str:
    method, _, path = str(test.http).partition(" ")
    address = service.http_address()
    headers = {key: _expand_variables(service, value) for key, value in test.headers.items()}
    body = _expand_variables(service, test.send).encode() if test.send is not None else None
    deadline = time.monotonic() + test.timeout
    with open_http_response(address, method, path, test.timeout, body=body, headers=headers) as response:
        text = _read_prefix(response, deadline).decode(errors="replace")
        if response.status != test.status:
            return f"status {response.status}, expected {test.status}; the answer begins: {_shorten(service, text)}"
    if test.body is not None and test.body not in text:
        return f"the body does not contain {test.body!r}; it begins: {_shorten(service, text)}"
    if test.json_ is not None:
        try:
            document = json.loads(text)
        except ValueError:
            return f"the body is not JSON; it begins: {_shorten(service, text)}"
        return _first_difference(service, document, test.json_, "$")
    return ""


def _read_prefix(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The first part of a body; TimeoutError for one that has not come by then, however steadily it drips."""
    data = b""
    while len(data) < _MAX_RESPONSE_BYTES and (chunk := response.read1(_MAX_RESPONSE_BYTES - len(data))):
        data += chunk
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if response.length and len(data) < _MAX_RESPONSE_BYTES:
        raise http.client.IncompleteRead(data, response.length)
    return data


def _check_exec(service: RunningService, test: Test) -> str:
    try:
        code, output = _call_with_timeout(
            test.timeout, lambda: exec_command(service.engine, service.id, to_argv(test.exec or []))
        )
    except OutOfTime:
        return f"the command did not end within {test.timeout:g} s"
    if code != test.exit_code:
        return f"exit code {code}, expected {test.exit_code}; it printed: {_shorten(service, output)}"
    if test.output is not None and test.output not in output:
        return f"the output does not contain {test.output!r}; it is: {_shorten(service, output)}"
    return ""


def _call_with_timeout(timeout: float, call: Callable[[], T]) -> T:
    """What `call` comes to; TimeoutError if that takes longer. Nobody waits for it then, not even the program's end.

    A command that hangs ends with its container, which may stay when the checks are over.
    """
    done: Future[T] = Future()

    def run_call() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run_call, daemon=True).start()
    return done.result(timeout)


def _check_tcp(service: RunningService, test: Test) -> str:
    address = service.address(test.tcp or 0)
    if wait_until(
        lambda: service.cancellation.is_cancelled or accepts_tcp_connection(address, test.timeout), test.timeout
    ):
        return ""
    return f"nothing listens on port {test.tcp} within {test.timeout:g} s"


def _check_log(service: RunningService, test: Test) -> str:
    pattern = re.compile(str(test.log))
    if wait_until(
        lambda: service.cancellation.is_cancelled or pattern.search(service.log.text()) is not None, test.timeout
    ):
        return ""
    return f"no line matches {test.log!r} within {test.timeout:g} s"


_SERVICE_CHECKS = {"http": _check_http, "exec": _check_exec, "tcp": _check_tcp, "log": _check_log}


def check_service(service: RunningService, test: Test) -> str:
    """Make a check of one of the kinds that ask a service; what is wrong, or nothing."""
    return _SERVICE_CHECKS[test.kind](service, test)


def _first_difference(service: RunningService, actual_value: Any, expected_value: Any, path: str) -> str:
    """The first difference; keys that `wanted` does not name are not looked at."""
    if isinstance(expected_value, dict) and isinstance(actual_value, dict):
        for key, value in expected_value.items():
            if key not in actual_value:
                return f"{path}.{key} is missing"
            if problem := _first_difference(service, actual_value[key], value, f"{path}.{key}"):
                return problem
        return ""
    actual, expected = (_shorten(service, json.dumps(item)) for item in (actual_value, expected_value))
    return "" if actual_value == expected_value else f"{path} is {actual}, expected {expected}"


def _expand_variables(service: RunningService, text: str) -> str:
    """`text` with `${NAME}` replaced by the value that the service got, so that no secret stands in the file twice."""
    return _VARIABLE.sub(lambda match: service.planned.environment.get(match[1], match[0]), text)


def _shorten(service: RunningService, text: str) -> str:
    """The beginning; secrets go first, since of one that is cut nobody would know the rest again."""
    text = console.sanitize(redact(text.strip(), service.planned.secret_values))
    return text if len(text) <= _MAX_EXCERPT_CHARS else f"{text[:_MAX_EXCERPT_CHARS]}…"


def _redact_all(lab: Lab, text: str) -> str:
    for service in lab.services.values():
        text = redact(text, service.planned.secret_values)
    return text
