"""Rule checks that run beside the creation of environments."""

from __future__ import annotations

import threading
import time

import pytest

from lyra_tasks.checks.rule_run import RefusedRunError, RuleRun
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.deviations import RuleReport

PASSED = RuleReport((RuleResult(rule="image.size", scope="images.web", outcome="passed"),))
FAILED = RuleReport((RuleResult(rule="image.size", scope="images.web", outcome="failed", message="too large"),))


def test_passed_rules_allow_the_run() -> None:
    rules = RuleRun(lambda: PASSED)
    rules.require_passed(Cancellation())
    assert rules.wait() is PASSED


def test_failed_rules_refuse_the_run() -> None:
    rules = RuleRun(lambda: FAILED)
    with pytest.raises(RefusedRunError):
        rules.require_passed()
    assert rules.wait() is FAILED


def test_rules_that_cannot_be_checked_refuse_the_run_with_their_error() -> None:
    def fail() -> RuleReport:
        raise PreconditionError("the engine is gone")

    rules = RuleRun(fail)
    with pytest.raises(RefusedRunError):
        rules.require_passed(Cancellation())
    with pytest.raises(PreconditionError, match="the engine is gone"):
        rules.wait()


def test_cancellation_does_not_wait_for_the_rules() -> None:
    end, cancellation = threading.Event(), Cancellation()

    def check() -> RuleReport:
        end.wait(30)
        return PASSED

    rules = RuleRun(check)
    cancellation.cancel()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        rules.require_passed(cancellation)
    assert time.monotonic() - started < 5
    end.set()
