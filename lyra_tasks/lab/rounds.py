"""Making the checks one after another, a line each while they run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lyra_tasks import console
from lyra_tasks.config.models import Test
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab.checks import Means, check
from lyra_tasks.lab.groups import PlannedGroup
from lyra_tasks.lab.running import Lab
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.records.metrics import event

_BETWEEN_TRIES = 0.5
_LAST_BREATH = 0.3


@dataclass(frozen=True)
class Conduct:
    """How the checks are made: stop at the first that fails, how many rounds, whether the lab stays afterwards."""

    fail_fast: bool = False
    repeat: int = 1
    keep_running: bool = False


def make_checks(lab: Lab, group: PlannedGroup, means: Means, conduct: Conduct, results: list[CheckResult]) -> None:
    """Make the checks of a group in their order and add what came of each to `results`.

    A service that dies meanwhile raises what it died of; the results so far are there.
    """
    _make(lab, group, means, conduct, results)
    if not lab.halt.enough.is_set() and (fault := lab.died_at_last()):
        raise fault


def _make(lab: Lab, group: PlannedGroup, means: Means, conduct: Conduct, results: list[CheckResult]) -> None:
    for number in range(1, conduct.repeat + 1):
        for test in group.tests:
            if lab.halt.enough.is_set():
                return
            passed = sum(each.outcome == "passed" for each in results)
            place = f"{len(results) + 1} of {len(group.tests) * conduct.repeat}"
            with console.doing(f"{group.name or 'check'} {place}: {test.name}", f"{passed} passed"):
                result = _with_retries(lab, group, test, means)
            lab.halt.pass_by()
            name = f"{result.name} (round {number})" if conduct.repeat > 1 else result.name
            result = result.model_copy(update={"name": name, "group": group.name})
            lab.events.append(
                event("check", result.service, name=result.name, outcome=result.outcome, seconds=result.seconds)
            )
            say(result)
            results.append(result)
            if fault := _death(lab, result):
                raise fault
            if conduct.fail_fast and result.outcome != "passed":
                lab.halt.enough.set()


def _death(lab: Lab, result: CheckResult) -> VerdictError | None:
    """What a service died of; one that takes a check down with it is gone a moment before the engine says so."""
    fault = lab.died()
    if fault is None and result.outcome != "passed":
        time.sleep(_LAST_BREATH)
        fault = lab.died()
    return fault


def _with_retries(lab: Lab, group: PlannedGroup, test: Test, means: Means) -> CheckResult:
    """A check that fails is made again up to `retry` times; that it needed it is said with its result."""
    result = check(lab, group, test, means)
    for number in range(1, test.retry + 1):
        if result.outcome == "passed" or lab.halt.enough.is_set():
            break
        time.sleep(_BETWEEN_TRIES)
        result = check(lab, group, test, means)
        if result.outcome == "passed":
            result = result.model_copy(update={"message": f"passed at try {number + 1}"})
    return result


def say(result: CheckResult) -> None:
    """What came of a check, as soon as it was made."""
    mark = console.style("ok  ", "green") if result.outcome == "passed" else console.style("FAIL", "red", "bold")
    lines = [f"{mark} {result.title} ({result.seconds:.2f} s)"]
    # one word at a time, whatever other groups have to say
    console.say("\n".join([*lines, *(f"     {line}" for line in result.message.splitlines())]))
