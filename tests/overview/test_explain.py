from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.overview.explain import ExplainFacts, explain_checkout
from lyra_tasks.records.evidence import CheckResult, Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.deviations import deviation_statuses, reassess_results
from lyra_tasks.rules.freshness import ImageState
from tests.rules.test_deviations import record

TODAY = datetime.date(2027, 1, 1)
PARTS = {"services.web.limits": "a", "tests.page": "b", "rules": "1-x", "deviations": "c", "file site.toml": "d"}
KEY = SetKey(images={"web": "sha256:1"}, test_doubles={"db": "sha256:2"}, effective_hash="e")


def evidence(**change: Any) -> Evidence:
    fields: dict[str, Any] = {
        "set": KEY, "part_hashes": PARTS, "passed": True, "run": "r1", "started_at": "2026-12-31T00:00:00+00:00",
        "seconds": 1.0, "engine": {}, "checks": [], "rules": [], "usage": {},
    }  # fmt: skip
    return Evidence.model_validate(fields | change)


def facts(problem: str = "", image_record: ImageRecord | None = None, **change: Any) -> ExplainFacts:
    tested = evidence()
    promotable = ExplainFacts(
        images=(ImageState("web", image_record or record(), problem),),
        key=KEY, parts=PARTS, evidence=tested, previous_evidence=tested,
        rule_report=reassess_results(configuration(), tested.rules, TODAY), deviation_statuses=(),
        version="1.0.0", is_promoted=False, is_engine_running=True,
    )  # fmt: skip
    return dataclasses.replace(promotable, **change)


def configuration(*deviations: dict[str, Any]) -> Configuration:
    return Configuration.model_validate({"schema": 1, "project": {"name": "shop"}, "deviations": list(deviations)})


def explained_lines(facts: ExplainFacts) -> list[str]:
    return [f"{item.subject} {item.state}: {item.reason}".rstrip(": ") for item in explain_checkout(facts).items]


def test_explain_suggests_promote_after_test() -> None:
    assert explain_checkout(facts()).command == "promote"
    promoted = explain_checkout(facts(is_promoted=True))
    assert (promoted.command, promoted.manual_step) == ("", "")
    assert promoted.items[-1].subject == "bundle 1.0.0"


def test_explain_names_stale_image_and_change() -> None:
    stale = facts("was built before its context changed")
    assert explained_lines(stale)[0] == "image web stale: it was built before its context changed"
    assert explain_checkout(stale).command == "build test promote"


def test_explain_fetches_third_party_images_by_test() -> None:
    cache = ImageState("cache", record(), "was fetched before its lock changed", is_own=False)
    explanation = explain_checkout(facts(images=(*facts().images, cache)))
    assert "image cache stale: it was fetched before its lock changed" in explained_lines(facts(images=(cache,)))
    assert explanation.command == "test promote"


@pytest.mark.parametrize(
    ("key", "parts", "change"),
    [
        ({}, {"services.web.limits": "z"}, "services.web.limits changed since run r1"),
        ({}, {"tests.other": "z"}, "tests.other is new since run r1"),
        ({}, {"tests.page": None}, "tests.page was removed since run r1"),
        ({}, {"rules": "2-y"}, "the rules changed from 1-x to 2-y since run r1"),
        ({}, {"file site.toml": "z"}, "file site.toml changed since run r1"),
        ({"images": {"web": "sha256:9"}}, {}, "image web changed since run r1"),
        ({"images": {"web": "sha256:1", "new": "sha256:3"}}, {}, "image new is new since run r1"),
        ({"test_doubles": {"db": "sha256:9"}}, {}, "the test double db changed since run r1"),
    ],
)
def test_explain_lists_every_change_since_test(key: dict[str, Any], parts: dict[str, str | None], change: str) -> None:
    current_parts = {name: value for name, value in (PARTS | parts).items() if value is not None}
    stale = facts(key=KEY.model_copy(update=key), parts=current_parts, evidence=None)
    assert f"test stale: {change}" in explained_lines(stale)
    assert explain_checkout(stale).command == "test promote"


def test_explain_reports_missing_test() -> None:
    stale = facts(evidence=None, previous_evidence=None)
    assert "test missing: nothing was tested yet, or by another version of lyra-tasks" in explained_lines(stale)


def test_explain_asks_to_fix_failed_check_first() -> None:
    check = CheckResult(name="page", kind="http", service="web", outcome="failed")
    failed = evidence(passed=False, checks=[check])
    explanation = explain_checkout(facts(evidence=failed))
    assert (explanation.command, explanation.manual_step) == ("build test promote", "fix the failing checks")
    assert "test failed: page (run r1)" in explained_lines(facts(evidence=failed))


def test_explain_refuses_expired_deviation() -> None:
    rule = {"rule": "container.egress", "scope": "services.web", "reason": "r", "owner": "ada"}
    deviating = evidence(
        rules=[RuleResult(rule="container.egress", scope="services.web", outcome="deviation", message="a way out")]
    )
    for expires, state in ((datetime.date(2026, 12, 31), "refused"), (datetime.date(2027, 1, 20), "notice")):
        config = configuration(rule | {"expires": expires})
        stale = facts(
            evidence=deviating,
            rule_report=reassess_results(config, deviating.rules, TODAY),
            deviation_statuses=deviation_statuses(config, deviating.rules, TODAY),
        )
        assert any(line.startswith(f"deviation from container.egress {state}") for line in explained_lines(stale))
        assert bool(explain_checkout(stale).manual_step) == (state == "refused")


@pytest.mark.parametrize(
    ("outcome", "days", "state"),
    [
        ("passed", 10, "unused"),
        ("deviation", 10, "used"),
        ("deviation", -1, "expired"),
        ("skipped", -1, "expired"),
        ("passed", -1, "unused"),
        ("skipped", 10, "unknown"),
    ],
)
def test_deviation_status_by_date_and_results(outcome: str, days: int, state: str) -> None:
    expires = TODAY + datetime.timedelta(days=days)
    config = configuration(
        {"rule": "container.egress", "scope": "services.*", "reason": "r", "owner": "ada", "expires": expires}
    )
    result = RuleResult.model_validate({"rule": "container.egress", "scope": "services.web", "outcome": outcome})
    (status,) = deviation_statuses(config, [result], TODAY)
    assert (status.state, status.days_left) == (state, days)
