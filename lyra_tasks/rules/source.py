"""Check that everything a bundle is made from is committed."""

from __future__ import annotations

import datetime

from lyra_tasks.config.models import Configuration
from lyra_tasks.dockerfile.context import format_names
from lyra_tasks.engine.source import SOURCE_SCOPE
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.catalogue import SOURCE_COMMITTED, TESTS_FRESH, TESTS_PASSED
from lyra_tasks.rules.deviations import RuleReport, assess_checks
from lyra_tasks.rules.finding import RuleCheck
from lyra_tasks.versions.git import GitFacts


def check_promotion(config: Configuration, git: GitFacts, today: datetime.date) -> RuleReport:
    """Check the rules of a promotion; `require_tested_set` has already enforced those about the test.

    Changes make a snapshot, for which no deviation is needed. What git does not commit can be allowed by one.
    """
    messages = (describe_uncommitted(git),) if git.uncommitted_inputs else ()
    checks = [RuleCheck(SOURCE_COMMITTED, SOURCE_SCOPE, messages)] if messages or not git.changed_paths else []
    report = assess_checks(config, checks, today)
    results = list(report.results)
    if git.changed_paths:
        message = f"not committed: {format_names(git.changed_paths)}"
        results.append(RuleResult(rule=SOURCE_COMMITTED, scope=SOURCE_SCOPE, outcome="warning", message=message))
    results += [RuleResult(rule=rule, scope="project", outcome="passed") for rule in (TESTS_FRESH, TESTS_PASSED)]
    return RuleReport(tuple(results), report.used_deviations)


def describe_uncommitted(git: GitFacts) -> str:
    """Return a message that names what images contain and git does not commit."""
    return f"in an image, but not as git has it: {format_names(git.uncommitted_inputs)}"
