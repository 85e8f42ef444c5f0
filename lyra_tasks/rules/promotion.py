"""The rules that a promotion adds to those of the test that it rests on."""

from __future__ import annotations

from lyra_tasks.config.git import GitFacts
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules import catalogue

_MOST = 5


def promotion_results(git: GitFacts) -> tuple[RuleResult, ...]:
    """What is known of the source, and of a set that got as far as this: `tested_set` lets no other through."""
    return (
        _committed(git),
        RuleResult(rule=catalogue.FRESH, scope="project", outcome="kept"),
        RuleResult(rule=catalogue.PASSED, scope="project", outcome="kept"),
    )


def _committed(git: GitFacts) -> RuleResult:
    if not git.dirty:
        return RuleResult(rule=catalogue.COMMITTED, scope="source", outcome="kept")
    named = ", ".join(git.changed[:_MOST])
    more = len(git.changed) - _MOST
    what = f"not committed: {named}{f' and {more} more' if more > 0 else ''}"
    return RuleResult(rule=catalogue.COMMITTED, scope="source", outcome="warning", message=what)
