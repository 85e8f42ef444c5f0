"""Apply deviations (written, dated reasons) to rule violations, and report the state of each deviation."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.catalogue import RULES_BY_ID
from lyra_tasks.rules.finding import RuleCheck

DeviationState = Literal["used", "unused", "expired", "unknown"]

EXPIRY_WARNING_DAYS = 30


@dataclass(frozen=True)
class RuleReport:
    """Results per rule and scope, with the deviations that were needed and those that were not."""

    results: tuple[RuleResult, ...]
    used_deviations: tuple[Deviation, ...] = ()
    unused_deviations: tuple[Deviation, ...] = ()

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """Results that fail the command with exit code 5."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def raise_if_failed(self) -> None:
        """Raise CheckFailedError with all violated rules that have no valid deviation."""
        if not self.failed:
            return
        rule = RULES_BY_ID[self.failed[0].rule]
        rerun = ", then run `test promote`" if "promote" in rule.checked_by else ""
        raise CheckFailedError(
            f"{len(self.failed)} rule violation(s)",
            hint=f"Run `rules.explain {rule.id}` for the fix, or add a [[deviations]] entry with rule, scope, reason, "
            f"owner and expires{rerun}",
            details=tuple(f"{result.scope}: {result.message} (rule {result.rule})" for result in self.failed),
        )


@dataclass(frozen=True)
class DeviationStatus:
    """The state of a deviation: `unknown` until its rule was checked; `days_left` is negative after its expiry.

    It is `expired` unless no check needs it any more: then it is `unused`, whatever its date.
    """

    deviation: Deviation
    state: DeviationState
    days_left: int

    @property
    def expires_soon(self) -> bool:
        """Whether it expires within the warning period."""
        return 0 <= self.days_left <= EXPIRY_WARNING_DAYS


def assess_checks(config: Configuration, checks: Iterable[RuleCheck], today: datetime.date) -> RuleReport:
    """Apply the deviations to rule checks.

    Without a deviation, a violation fails if the rule is an error, and warns otherwise; with only an expired one, it
    fails. A deviation counts as unused only if its rule was checked.
    """
    used: list[Deviation] = []
    results: list[RuleResult] = []
    checked_rules: set[str] = set()
    for check in checks:
        if check.skip_reason:
            skipped = RuleResult(rule=check.rule, scope=check.scope, outcome="skipped", message=check.skip_reason)
            results.append(skipped)
            continue
        checked_rules.add(check.rule)
        if not check.messages:
            results.append(RuleResult(rule=check.rule, scope=check.scope, outcome="passed"))
        for message in check.messages:
            violation = RuleResult(rule=check.rule, scope=check.scope, outcome="failed", message=message)
            results.append(_apply_deviations(config, violation, today, used))
    unused = tuple(
        deviation for deviation in config.deviations if deviation.rule in checked_rules and deviation not in used
    )
    return RuleReport(tuple(results), tuple(used), unused)


def reassess_results(config: Configuration, results: Sequence[RuleResult], today: datetime.date) -> RuleReport:
    """Apply the deviations again for a promotion: some may have expired, and some warnings of `test` are errors now."""
    used: list[Deviation] = []

    def reassess(result: RuleResult) -> RuleResult:
        is_enforced_warning = result.outcome == "warning" and RULES_BY_ID[result.rule].enforced_on_promotion
        if result.outcome != "deviation" and not is_enforced_warning:
            return result
        return _apply_deviations(config, result, today, used, is_promotion=True)

    reassessed = tuple(reassess(result) for result in results)
    return RuleReport(reassessed, tuple(used))


def enforce_rules(config: Configuration, checks: Iterable[RuleCheck], today: datetime.date) -> None:
    """Raise CheckFailedError if a deviation that the checks need is missing or has expired."""
    assess_checks(config, checks, today).raise_if_failed()


def deviation_statuses(
    config: Configuration, results: Sequence[RuleResult], today: datetime.date
) -> tuple[DeviationStatus, ...]:
    """Return the state of every deviation, by the results of the last test."""
    statuses = []
    for deviation in config.deviations:
        days_left = (deviation.expires - today).days
        checked = [result for result in results if result.rule == deviation.rule and result.outcome != "skipped"]
        needing = [item for item in checked if item.outcome != "passed" and covers(deviation, item.rule, item.scope)]
        state: DeviationState = "used" if needing else "unused" if checked else "unknown"
        if days_left < 0 and state != "unused":
            state = "expired"
        statuses.append(DeviationStatus(deviation, state, days_left))
    return tuple(statuses)


def covers(deviation: Deviation, rule: str, scope: str) -> bool:
    """Return whether a deviation covers a rule in a scope; `images.web` covers the image for all its platforms."""
    image_scope = scope.partition("@")[0]
    return deviation.rule == rule and any(fnmatchcase(candidate, deviation.scope) for candidate in (scope, image_scope))


def _apply_deviations(
    config: Configuration,
    violation: RuleResult,
    today: datetime.date,
    used: list[Deviation],
    *,
    is_promotion: bool = False,
) -> RuleResult:
    rule, message = RULES_BY_ID[violation.rule], violation.message
    outcome: Literal["failed", "deviation", "warning"]
    deviations = [deviation for deviation in config.deviations if covers(deviation, rule.id, violation.scope)]
    valid = next((deviation for deviation in deviations if deviation.expires >= today), None)
    if valid is not None:
        outcome = "deviation"
        if valid not in used:
            used.append(valid)
    elif deviations:
        outcome, message = "failed", f"{message}; the deviation from {rule.id} expired on {deviations[0].expires}"
        used.append(deviations[0])
    elif rule.severity == "warning" or (rule.enforced_on_promotion and not is_promotion):
        outcome = "warning"
    else:
        outcome = "failed"
    return RuleResult(rule=rule.id, scope=violation.scope, outcome=outcome, message=message)
