"""Deviations: going around a rule takes a written, dated reason; what rules and reasons come to together."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.errors import VerdictError
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.breach import Breach, Look
from lyra_tasks.rules.catalogue import BY_ID

_HINT = "keep the rule, or write a [[deviations]] entry with rule, scope, reason, owner and expires"


@dataclass(frozen=True)
class Judgement:
    """What came of looking: a result per rule and scope, the deviations that were needed, and those that were not."""

    results: tuple[RuleResult, ...]
    used: tuple[Deviation, ...] = ()
    unused: tuple[Deviation, ...] = ()

    @property
    def broken(self) -> tuple[RuleResult, ...]:
        """What ends the word with 5."""
        return tuple(each for each in self.results if each.outcome == "broken")

    def require(self) -> None:
        """VerdictError that lists every rule that is broken and has no reason, or one that has expired."""
        if not self.broken:
            return
        again = ", and run `test promote`" if BY_ID[self.broken[0].rule].later else ""
        raise VerdictError(
            f"{len(self.broken)} rule(s) are not kept",
            hint=f"{_HINT}{again}; `rules.explain {self.broken[0].rule}` says more",
            details=tuple(f"{each.scope}: {each.message} (rule {each.rule})" for each in self.broken),
        )


def judge(config: Configuration, looks: Iterable[Look], today: datetime.date) -> Judgement:
    """Weigh what was seen against the written reasons.

    A breach without a reason is broken where the rule is an error, else a warning; one whose only reason has expired is
    broken. A deviation counts as unused only where its rule was looked at.
    """
    looked = list(looks)
    used: list[Deviation] = []
    results = [result for look in looked for result in _results(config, look, today, used)]
    seen = {look.rule for look in looked if not look.skipped}
    unused = tuple(each for each in config.deviations if each.rule in seen and each not in used)
    return Judgement(tuple(results), tuple(used), unused)


def rejudge(config: Configuration, results: Sequence[RuleResult], today: datetime.date) -> Judgement:
    """The same results on another day: a reason may have expired, and what `test` only warned of counts."""
    used: list[Deviation] = []
    again = [
        _weighed(config, Breach(each.rule, each.scope, each.message), today, used, now=True)
        if each.outcome == "deviation" or (each.outcome == "warning" and BY_ID[each.rule].later)
        else each
        for each in results
    ]
    return Judgement(tuple(again), tuple(used))


def require_reasons(config: Configuration, looks: Iterable[Look], today: datetime.date) -> tuple[Deviation, ...]:
    """The deviations that give a reason for what `looks` found; VerdictError where one is missing or has expired."""
    judgement = judge(config, looks, today)
    judgement.require()
    return judgement.used


def _results(config: Configuration, look: Look, today: datetime.date, used: list[Deviation]) -> Iterator[RuleResult]:
    if look.skipped:
        yield RuleResult(rule=look.rule, scope=look.scope, outcome="skipped", message=look.skipped)
    elif not look.breaches:
        yield RuleResult(rule=look.rule, scope=look.scope, outcome="kept")
    for breach in look.found:
        yield _weighed(config, breach, today, used)


def _weighed(
    config: Configuration, breach: Breach, today: datetime.date, used: list[Deviation], *, now: bool = False
) -> RuleResult:
    """`now` is whether rules count that are errors of a promotion alone."""

    def result(outcome: str, message: str) -> RuleResult:
        return RuleResult.model_validate(
            {"rule": breach.rule, "scope": breach.scope, "outcome": outcome, "message": message}
        )

    reasons = [each for each in config.deviations if covers(each, breach.rule, breach.scope)]
    standing = next((each for each in reasons if each.expires >= today), None)
    if standing is None and reasons:
        used.append(reasons[0])
        return result("broken", f"{breach.what}; the deviation from {breach.rule} expired on {reasons[0].expires}")
    if standing is not None:
        if standing not in used:
            used.append(standing)
        return result("deviation", breach.what)
    rule = BY_ID[breach.rule]
    warned = rule.severity == "warning" or (rule.later and not now)
    return result("warning" if warned else "broken", breach.what)


def covers(deviation: Deviation, rule: str, scope: str) -> bool:
    """Whether a deviation is about this rule in this scope; `images.web` is about the image for all its platforms."""
    whole = scope.partition("@")[0]
    return deviation.rule == rule and any(fnmatchcase(each, deviation.scope) for each in (scope, whole))
