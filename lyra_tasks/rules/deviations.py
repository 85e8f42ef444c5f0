"""Deviations: going around a rule takes a written, dated reason; what rules and reasons come to together."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.catalogue import RULES_BY_ID
from lyra_tasks.rules.finding import RuleCheck, Violation

_HINT = "keep the rule, or write a [[deviations]] entry with rule, scope, reason, owner and expires"


@dataclass(frozen=True)
class RuleReport:
    """What came of looking: a result per rule and scope, the deviations that were needed, and those that were not."""

    results: tuple[RuleResult, ...]
    used_deviations: tuple[Deviation, ...] = ()
    unused_deviations: tuple[Deviation, ...] = ()

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """What ends the word with 5."""
        return tuple(result for result in self.results if result.outcome == "broken")

    def raise_if_failed(self) -> None:
        """VerdictError that lists every rule that is broken and has no reason, or one that has expired."""
        if not self.failed:
            return
        rerun_hint = ", and run `test promote`" if RULES_BY_ID[self.failed[0].rule].enforced_on_promotion else ""
        raise CheckFailedError(
            f"{len(self.failed)} rule(s) are not kept",
            hint=f"{_HINT}{rerun_hint}; `rules.explain {self.failed[0].rule}` says more",
            details=tuple(f"{result.scope}: {result.message} (rule {result.rule})" for result in self.failed),
        )


def assess_checks(config: Configuration, checks: Iterable[RuleCheck], today: datetime.date) -> RuleReport:
    """Weigh what was seen against the written reasons.

    A breach without a reason is broken where the rule is an error, else a warning; one whose only reason has expired is
    broken. A deviation counts as unused only where its rule was looked at.
    """
    all_checks = list(checks)
    used: list[Deviation] = []
    results = [result for check in all_checks for result in _assess_check(config, check, today, used)]
    checked_rules = {check.rule for check in all_checks if not check.skip_reason}
    unused = tuple(
        deviation for deviation in config.deviations if deviation.rule in checked_rules and deviation not in used
    )
    return RuleReport(tuple(results), tuple(used), unused)


def reassess_results(config: Configuration, results: Sequence[RuleResult], today: datetime.date) -> RuleReport:
    """The same results on another day: a reason may have expired, and what `test` only warned of counts."""
    used: list[Deviation] = []
    reassessed = [
        _apply_deviations(config, Violation(result.rule, result.scope, result.message), today, used, is_promotion=True)
        if result.outcome == "deviation"
        or (result.outcome == "warning" and RULES_BY_ID[result.rule].enforced_on_promotion)
        else result
        for result in results
    ]
    return RuleReport(tuple(reassessed), tuple(used))


def enforce_rules(config: Configuration, checks: Iterable[RuleCheck], today: datetime.date) -> tuple[Deviation, ...]:
    """The deviations that give a reason for what `looks` found; VerdictError where one is missing or has expired."""
    report = assess_checks(config, checks, today)
    report.raise_if_failed()
    return report.used_deviations


def _assess_check(
    config: Configuration, check: RuleCheck, today: datetime.date, used: list[Deviation]
) -> Iterator[RuleResult]:
    if check.skip_reason:
        yield RuleResult(rule=check.rule, scope=check.scope, outcome="skipped", message=check.skip_reason)
    elif not check.messages:
        yield RuleResult(rule=check.rule, scope=check.scope, outcome="kept")
    for violation in check.violations:
        yield _apply_deviations(config, violation, today, used)


def _apply_deviations(
    config: Configuration,
    violation: Violation,
    today: datetime.date,
    used: list[Deviation],
    *,
    is_promotion: bool = False,
) -> RuleResult:
    """`now` is whether rules count that are errors of a promotion alone."""

    def build_result(outcome: str, message: str) -> RuleResult:
        return RuleResult.model_validate(
            {"rule": violation.rule, "scope": violation.scope, "outcome": outcome, "message": message}
        )

    deviations = [deviation for deviation in config.deviations if covers(deviation, violation.rule, violation.scope)]
    valid_deviation = next((deviation for deviation in deviations if deviation.expires >= today), None)
    if valid_deviation is None and deviations:
        used.append(deviations[0])
        return build_result(
            "broken", f"{violation.message}; the deviation from {violation.rule} expired on {deviations[0].expires}"
        )
    if valid_deviation is not None:
        if valid_deviation not in used:
            used.append(valid_deviation)
        return build_result("deviation", violation.message)
    rule = RULES_BY_ID[violation.rule]
    is_warning = rule.severity == "warning" or (rule.enforced_on_promotion and not is_promotion)
    return build_result("warning" if is_warning else "broken", violation.message)


def covers(deviation: Deviation, rule: str, scope: str) -> bool:
    """Whether a deviation is about this rule in this scope; `images.web` is about the image for all its platforms."""
    image_scope = scope.partition("@")[0]
    return deviation.rule == rule and any(fnmatchcase(candidate, deviation.scope) for candidate in (scope, image_scope))


EXPIRY_WARNING_DAYS = 30  # days


@dataclass(frozen=True)
class DeviationStatus:
    """One deviation: `unknown` until its rule was looked at; `days` are left, negative once it has expired."""

    deviation: Deviation
    state: Literal["used", "unused", "expired", "unknown"]
    days_left: int

    @property
    def expires_soon(self) -> bool:
        """Whether somebody must decide about it within a month."""
        return 0 <= self.days_left <= EXPIRY_WARNING_DAYS


def deviation_statuses(
    config: Configuration, results: Sequence[RuleResult], today: datetime.date
) -> tuple[DeviationStatus, ...]:
    """Every deviation of the configuration, by the results of the last test; expired counts before anything else."""
    return tuple(_deviation_status(deviation, results, today) for deviation in config.deviations)


def _deviation_status(deviation: Deviation, results: Sequence[RuleResult], today: datetime.date) -> DeviationStatus:
    days_left = (deviation.expires - today).days
    if days_left < 0:
        return DeviationStatus(deviation, "expired", days_left)
    rule_results = [result for result in results if result.rule == deviation.rule and result.outcome != "skipped"]
    is_needed = any(
        result.outcome != "kept" and covers(deviation, result.rule, result.scope) for result in rule_results
    )
    return DeviationStatus(deviation, "used" if is_needed else "unused" if rule_results else "unknown", days_left)
