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
        "set": KEY, "parts": PARTS, "passed": True, "run": "r1", "started_at": "2026-12-31T00:00:00+00:00",
        "seconds": 1.0, "engine": {}, "checks": [], "rules": [], "use": {},
    }  # fmt: skip
    return Evidence.model_validate(fields | change)


def facts(problem: str = "", built: ImageRecord | None = None, **change: Any) -> ExplainFacts:
    tested = evidence()
    found = ExplainFacts(
        images=(ImageState("web", built or record(), problem),),
        key=KEY, parts=PARTS, evidence=tested, previous_evidence=tested,
        rule_report=reassess_results(configuration(), tested.rules, TODAY), deviation_statuses=(),
        version="1.0.0", is_promoted=False, is_engine_running=True,
    )  # fmt: skip
    return dataclasses.replace(found, **change)


def configuration(*deviations: dict[str, Any]) -> Configuration:
    return Configuration.model_validate({"schema": 1, "project": {"name": "shop"}, "deviations": list(deviations)})


def told(found: ExplainFacts) -> list[str]:
    return [f"{each.subject} {each.state}: {each.reason}".rstrip(": ") for each in explain_checkout(found).items]


def test_what_was_tested_is_to_be_promoted_and_then_nothing_is_to_be_done() -> None:
    assert explain_checkout(facts()).command == "promote"
    done = explain_checkout(facts(promoted=True))
    assert (done.command, done.manual_step) == ("", "")
    assert done.items[-1].subject == "bundle 1.0.0"


def test_an_image_whose_files_changed_is_named_with_what_changed() -> None:
    found = facts("was built before its context changed")
    assert told(found)[0] == "image web stale: it was built before its context changed"
    assert explain_checkout(found).command == "build test promote"


@pytest.mark.parametrize(
    ("key", "parts", "said"),
    [
        ({}, {"services.web.limits": "z"}, "services.web.limits changed since run r1"),
        ({}, {"tests.other": "z"}, "tests.other is new since run r1"),
        ({}, {"tests.page": None}, "tests.page is gone since run r1"),
        ({}, {"rules": "2-y"}, "the rules are others: 1-x then, 2-y now since run r1"),
        ({}, {"file site.toml": "z"}, "file site.toml changed since run r1"),
        ({"images": {"web": "sha256:9"}}, {}, "image web is another since run r1"),
        ({"images": {"web": "sha256:1", "new": "sha256:3"}}, {}, "image new is new since run r1"),
        ({"externals": {"db": "sha256:9"}}, {}, "the external image of service db is another since run r1"),
    ],
)
def test_each_change_that_made_the_evidence_stale_is_told(
    key: dict[str, Any], parts: dict[str, str | None], said: str
) -> None:
    now = {name: value for name, value in (PARTS | parts).items() if value is not None}
    found = facts(key=KEY.model_copy(update=key), parts=now, evidence=None)
    assert f"test stale: {said}" in told(found)
    assert explain_checkout(found).command == "test promote"


def test_nothing_tested_yet_is_told_as_that() -> None:
    found = facts(evidence=None, before=None)
    assert "test missing: nothing has been tested yet, or by another version of lyra-tasks" in told(found)


def test_a_check_that_failed_is_to_be_mended_first() -> None:
    check = CheckResult(name="page", kind="http", service="web", outcome="failed")
    failed = evidence(passed=False, checks=[check])
    found = explain_checkout(facts(evidence=failed))
    assert (found.command, found.manual_step) == ("build test promote", "mend what failed")
    assert "test failed: page (run r1)" in told(facts(evidence=failed))


def test_a_deviation_that_has_expired_since_the_test_is_refused_and_one_that_ends_soon_is_told() -> None:
    rule = {"rule": "container.egress", "scope": "services.web", "reason": "r", "owner": "ada"}
    excused = evidence(
        rules=[RuleResult(rule="container.egress", scope="services.web", outcome="deviation", message="a way out")]
    )
    for expires, state in ((datetime.date(2026, 12, 31), "refused"), (datetime.date(2027, 1, 20), "notice")):
        config = configuration(rule | {"expires": expires})
        found = facts(
            evidence=excused,
            judgement=reassess_results(config, excused.rules, TODAY),
            standings=deviation_statuses(config, excused.rules, TODAY),
        )
        assert any(line.startswith(f"deviation from container.egress {state}") for line in told(found))
        assert bool(explain_checkout(found).manual_step) == (state == "refused")


@pytest.mark.parametrize(
    ("outcome", "days", "state"),
    [("kept", 10, "unused"), ("deviation", 10, "used"), ("deviation", -1, "expired"), ("skipped", 10, "unknown")],
)
def test_where_a_deviation_stands(outcome: str, days: int, state: str) -> None:
    expires = TODAY + datetime.timedelta(days=days)
    config = configuration(
        {"rule": "container.egress", "scope": "services.*", "reason": "r", "owner": "ada", "expires": expires}
    )
    result = RuleResult.model_validate({"rule": "container.egress", "scope": "services.web", "outcome": outcome})
    (standing,) = deviation_statuses(config, [result], TODAY)
    assert (standing.state, standing.days_left) == (state, days)
