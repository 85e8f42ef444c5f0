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
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import argv
from lyra_tasks.engine import objects
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.streams import wait_for
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.groups import PlannedGroup
from lyra_tasks.lab.host_check import run_on_host
from lyra_tasks.lab.ready import http_answer, tcp_answers
from lyra_tasks.lab.stages import PlannedStage, build
from lyra_tasks.lab.structure import check_structure
from lyra_tasks.records.evidence import CHECKS, CheckResult
from lyra_tasks.rules.declared import without

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.lab.running import Lab, RunningService

T = TypeVar("T")

_SHOWN = 400
_MOST = 1 << 20  # bytes of an answer
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Means:
    """What checks are made with: the engine, the folders of project and run, stages by check.

    `kept` is, by check, the folder below `checks/` of the run's for what it brings.
    """

    engine: Engine
    owner: Owner
    root: Path
    folder: Path
    stages: Mapping[str, PlannedStage]
    kept: Mapping[str, str]

    def folder_of(self, group: PlannedGroup, test: Test) -> Path:
        """Where what a check of a group brings is kept."""
        return self.folder / CHECKS / group.label / self.kept[test.name]


def kept_folders(tests: Iterable[Test]) -> dict[str, str]:
    """By name, the folders of the checks that bring something: their names, as far as a file system takes them."""
    found: dict[str, str] = {}
    for test in tests:
        if test.of_image or test.kind == "run":
            plain = re.sub(r"[^a-z0-9]+", "-", test.name.lower()).strip("-")[:60] or "check"
            same = [name for name in found.values() if name.rpartition("~")[0] == plain or name == plain]
            found[test.name] = f"{plain}~{len(same) + 1}" if same else plain
    return found


def check(lab: Lab, group: PlannedGroup, test: Test, means: Means) -> CheckResult:
    """Make one check and say what was seen; it never raises for a check that fails."""
    began = time.monotonic()
    try:
        problem = _problem(lab, group, test, means)
        outcome: Literal["passed", "failed", "error"] = "failed" if problem else "passed"
    except (LyraError, OSError, http.client.HTTPException, OutOfTime) as error:
        problem, outcome = f"could not be made: {error or type(error).__name__}", "error"
    return CheckResult(
        name=test.name,
        kind=test.kind,
        service=test.service or "",
        outcome=outcome,
        message=_masked(lab, console.clean(problem)),
        seconds=round(time.monotonic() - began, 3),
    )


def _problem(lab: Lab, group: PlannedGroup, test: Test, means: Means) -> str:
    if test.service is not None and test.kind in _KINDS:
        return _KINDS[test.kind](lab.services[test.service], test)
    if test.kind == "stage":
        return _stage(lab, group, test, means)
    if test.kind == "structure":
        return _structure(lab, group, test, means)
    return run_on_host(lab, test, means.root, means.folder_of(group, test))


def _stage(lab: Lab, group: PlannedGroup, test: Test, means: Means) -> str:
    ending = partial(lab.halt.ending, after=test.patience)
    planned, folder = means.stages[test.name], means.folder_of(group, test)
    began = time.monotonic()
    problem = build(planned, engine=means.engine, owner=means.owner, folder=folder, ending=ending)
    lab.halt.pass_by()
    if problem and time.monotonic() - began >= test.patience:
        return f"the stage was not built within {test.patience:g} s; {problem}"
    return problem


def _structure(lab: Lab, group: PlannedGroup, test: Test, means: Means) -> str:
    return check_structure(
        group.images[test.image or ""],
        means.root / (test.structure or ""),
        host=means.engine.host,
        platform=group.platform,
        folder=means.folder_of(group, test),
        timeout=test.patience,
        halt=lab.halt,
    )


def _http(service: RunningService, test: Test) -> str:
    method, _, path = str(test.http).partition(" ")
    address = service.http_address()
    headers = {key: _filled(service, value) for key, value in test.headers.items()}
    body = _filled(service, test.send).encode() if test.send is not None else None
    until = time.monotonic() + test.timeout
    with http_answer(address, method, path, test.timeout, body=body, headers=headers) as answer:
        text = _beginning(answer, until).decode(errors="replace")
        if answer.status != test.status:
            return f"status {answer.status}, expected {test.status}; the answer begins: {_short(service, text)}"
    if test.body is not None and test.body not in text:
        return f"the body does not contain {test.body!r}; it begins: {_short(service, text)}"
    if test.json_ is not None:
        try:
            seen = json.loads(text)
        except ValueError:
            return f"the body is not JSON; it begins: {_short(service, text)}"
        return _differs(service, seen, test.json_, "$")
    return ""


def _beginning(answer: http.client.HTTPResponse, until: float) -> bytes:
    """The first part of a body; TimeoutError for one that has not come by then, however steadily it drips."""
    read = b""
    while len(read) < _MOST and (part := answer.read1(_MOST - len(read))):
        read += part
        if time.monotonic() > until:
            raise TimeoutError("timed out")
    if answer.length and len(read) < _MOST:
        raise http.client.IncompleteRead(read, answer.length)
    return read


def _exec(service: RunningService, test: Test) -> str:
    try:
        code, output = _within(test.timeout, lambda: objects.execute(service.engine, service.id, argv(test.exec or [])))
    except OutOfTime:
        return f"the command did not end within {test.timeout:g} s"
    if code != test.exit_code:
        return f"exit code {code}, expected {test.exit_code}; it printed: {_short(service, output)}"
    if test.output is not None and test.output not in output:
        return f"the output does not contain {test.output!r}; it is: {_short(service, output)}"
    return ""


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` comes to; TimeoutError if that takes longer. Nobody waits for it then, not even the program's end.

    A command that hangs ends with its container, which may stay when the checks are over.
    """
    done: Future[T] = Future()

    def carry() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=carry, daemon=True).start()
    return done.result(seconds)


def _tcp(service: RunningService, test: Test) -> str:
    address = service.address(test.tcp or 0)
    if wait_for(lambda: service.halt.asked or tcp_answers(address, test.timeout), test.timeout):
        return ""
    return f"nothing listens on port {test.tcp} within {test.timeout:g} s"


def _log(service: RunningService, test: Test) -> str:
    pattern = re.compile(str(test.log))
    if wait_for(lambda: service.halt.asked or pattern.search(service.log.text()) is not None, test.timeout):
        return ""
    return f"no line matches {test.log!r} within {test.timeout:g} s"


_KINDS = {"http": _http, "exec": _exec, "tcp": _tcp, "log": _log}


def ask(service: RunningService, test: Test) -> str:
    """Make a check of one of the kinds that ask a service; what is wrong, or nothing."""
    return _KINDS[test.kind](service, test)


def _differs(service: RunningService, seen: Any, wanted: Any, where: str) -> str:
    """The first difference; keys that `wanted` does not name are not looked at."""
    if isinstance(wanted, dict) and isinstance(seen, dict):
        for key, value in wanted.items():
            if key not in seen:
                return f"{where}.{key} is missing"
            if problem := _differs(service, seen[key], value, f"{where}.{key}"):
                return problem
        return ""
    there, expected = (_short(service, json.dumps(each)) for each in (seen, wanted))
    return "" if seen == wanted else f"{where} is {there}, expected {expected}"


def _filled(service: RunningService, text: str) -> str:
    """`text` with `${NAME}` replaced by the value that the service got, so that no secret stands in the file twice."""
    return _VARIABLE.sub(lambda match: service.planned.environment.get(match[1], match[0]), text)


def _short(service: RunningService, text: str) -> str:
    """The beginning; secrets go first, since of one that is cut nobody would know the rest again."""
    text = console.clean(without(text.strip(), service.planned.masked))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _masked(lab: Lab, text: str) -> str:
    for service in lab.services.values():
        text = without(text, service.planned.masked)
    return text
