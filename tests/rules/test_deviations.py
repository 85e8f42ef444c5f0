from __future__ import annotations

import datetime
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.catalogue import RULES, Rule
from lyra_tasks.rules.deviations import assess_checks, enforce_rules, reassess_results
from lyra_tasks.rules.finding import RuleCheck, merge_platforms
from lyra_tasks.rules.images import check_image_record, check_tested_platform
from lyra_tasks.rules.services import check_capacity, check_service_settings

TODAY = datetime.date(2027, 1, 1)
UNPRIVILEGED = {"User": "10001"}
BOTH = ("linux/amd64", "linux/arm64")
EGRESS = [RuleCheck("container.egress", "services.web", ("it has a way out",))]


def configuration(**service: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "schema": 1,
            "project": {"name": "shop"},
            "proxima": {"cpus": 2, "memory": "1g", "max_image_size": "100m"},
            "images": {"web": {"context": "web"}},
            "services": {"web": {"image": "web", **service}},
        }
    )


def deviation(rule: str, scope: str, expires: str) -> dict[str, Any]:
    return {
        "rule": rule,
        "scope": scope,
        "reason": "it must",
        "owner": "ada",
        "expires": datetime.date.fromisoformat(expires),
    }


def record(**change: Any) -> ImageRecord:
    digest = f"sha256:{'0' * 64}"
    fields: dict[str, Any] = {
        "image": "web", "reference": "shop/web:1", "engine": "e", "engine_id": digest, "config_digest": digest,
        "manifest_digest": None, "diff_ids": [], "platform": "linux/amd64", "size": 1000, "commit": "c", "dirty": False,
        "version": "1.0.0", "run": "r", "built_at": "now", "inputs": {}, "bases": {},
    }  # fmt: skip
    return ImageRecord.model_validate(fields | change)


def rules(config: Configuration, image: dict[str, Any], **change: Any) -> list[str]:
    looks = [
        check_capacity(config),
        *check_image_record("web", record(**change), config.proxima),
        *check_service_settings("web", config.services["web"], image),
    ]
    return [look.rule for look in looks if look.messages]


def test_a_service_that_is_locked_down_breaks_no_rule() -> None:
    assert rules(configuration(), UNPRIVILEGED) == []


@pytest.mark.parametrize(
    ("service", "image", "rule"),
    [
        ({"read_only": False}, UNPRIVILEGED, "container.read-only-root"),
        ({"egress": True}, UNPRIVILEGED, "container.egress"),
        ({"cap_add": ["NET_BIND_SERVICE"]}, UNPRIVILEGED, "container.capabilities"),
        ({}, {}, "container.non-root"),
        ({}, {"User": "root"}, "container.non-root"),
        ({}, {"User": "0:10001"}, "container.non-root"),
        ({"user": "0"}, UNPRIVILEGED, "container.non-root"),
        ({"limits": {"cpus": 2.5}}, UNPRIVILEGED, "proxima.capacity"),
        ({"limits": {"memory": "2g"}}, UNPRIVILEGED, "proxima.capacity"),
    ],
)
def test_whatever_loosens_a_service_is_a_rule(service: dict[str, Any], image: dict[str, Any], rule: str) -> None:
    assert rules(configuration(**service), image) == [rule]


def test_the_services_own_user_wins_over_the_images() -> None:
    assert rules(configuration(user="10001"), {"User": "root"}) == []


def test_an_image_that_is_too_large_or_for_another_platform_breaks_a_rule() -> None:
    assert rules(configuration(), UNPRIVILEGED, size=200 * 1024**2) == ["image.size"]
    assert rules(configuration(), UNPRIVILEGED, platform="linux/arm64") == ["image.platform"]


def test_what_is_not_promoted_needs_no_room_on_proxima() -> None:
    assert check_capacity(configuration(limits={"cpus": 2.5}, promote=False)).messages == ()


def test_a_breach_without_a_reason_is_refused_and_named() -> None:
    with pytest.raises(CheckFailedError) as caught:
        enforce_rules(configuration(), [RuleCheck("container.egress", "services.web", ("it has a way out",))], TODAY)
    assert caught.value.exit_code == 5
    assert caught.value.details == ("services.web: it has a way out (rule container.egress)",)


def with_deviation(rule: str, scope: str, expires: str) -> Configuration:
    document = configuration().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Configuration.model_validate(document | {"schema": 1, "deviations": [deviation(rule, scope, expires)]})


@pytest.mark.parametrize("scope", ["services.web", "services.*", "*"])
def test_a_written_reason_covers_its_rule_in_its_scope(scope: str) -> None:
    config = with_deviation("container.egress", scope, "2027-01-01")
    used = enforce_rules(config, [RuleCheck("container.egress", "services.web", ("it has a way out",))], TODAY)
    assert used == tuple(config.deviations)


@pytest.mark.parametrize(
    ("rule", "scope"), [("container.non-root", "services.web"), ("container.egress", "services.db")]
)
def test_a_reason_for_something_else_does_not_help(rule: str, scope: str) -> None:
    with pytest.raises(CheckFailedError):
        enforce_rules(
            with_deviation(rule, scope, "2027-01-01"),
            [RuleCheck("container.egress", "services.web", ("it has a way out",))],
            TODAY,
        )


def test_an_expired_reason_fails_and_says_when_it_expired() -> None:
    config = with_deviation("container.egress", "services.web", "2026-12-31")
    with pytest.raises(CheckFailedError) as caught:
        enforce_rules(config, EGRESS, TODAY)
    assert caught.value.exit_code == 5
    (line,) = caught.value.details
    assert "the deviation from container.egress expired on 2026-12-31" in line


def test_a_reason_that_stands_wins_over_one_that_has_expired() -> None:
    document = configuration().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    reasons = [deviation("container.egress", "services.web", day) for day in ("2026-12-31", "2027-06-30")]
    config = Configuration.model_validate(document | {"schema": 1, "deviations": reasons})
    judgement = assess_checks(config, EGRESS, TODAY)
    assert [result.outcome for result in judgement.results] == ["deviation"]
    assert [each.expires.isoformat() for each in judgement.used_deviations] == ["2027-06-30"]
    assert [each.expires.isoformat() for each in judgement.unused_deviations] == ["2026-12-31"]


def test_a_reason_that_nothing_needs_is_told_where_its_rule_was_looked_at_and_only_there() -> None:
    config = with_deviation("container.egress", "services.web", "2027-06-30")
    kept = [RuleCheck("container.egress", "services.web")]
    assert assess_checks(config, kept, TODAY).unused_deviations == tuple(config.deviations)
    assert assess_checks(config, [RuleCheck("container.non-root", "services.web")], TODAY).unused_deviations == ()
    assert (
        assess_checks(
            config, [RuleCheck("container.egress", "services.web", skip_reason="no tool")], TODAY
        ).unused_deviations
        == ()
    )


def test_a_warning_ends_nothing_and_an_expired_reason_for_one_does() -> None:
    look = [RuleCheck("image.healthcheck", "services.web", ("it has none",))]
    assert [each.outcome for each in assess_checks(configuration(), look, TODAY).results] == ["warning"]
    for day, outcome in (("2027-06-30", "deviation"), ("2026-12-31", "broken")):
        config = with_deviation("image.healthcheck", "services.*", day)
        assert [each.outcome for each in assess_checks(config, look, TODAY).results] == [outcome]


def test_what_was_not_run_is_warned_of_by_a_test_and_refused_by_a_promotion_unless_there_is_a_reason() -> None:
    looks = [
        check_tested_platform(f"web@{each}", record(platform=each), ["web@linux/amd64"], "linux/amd64") for each in BOTH
    ]
    results = assess_checks(configuration(), looks, TODAY).results
    assert [each.outcome for each in results] == ["kept", "warning"]
    with pytest.raises(CheckFailedError) as caught:
        reassess_results(configuration(), results, TODAY).raise_if_failed()
    assert caught.value.details[0].startswith("images.web@linux/arm64: nothing of it ran: the engine runs linux/amd64")
    assert "run `test promote`" in caught.value.hint
    for scope in ("images.web@linux/arm64", "images.*@linux/arm64", "images.web"):
        config = with_deviation("test.platform", scope, "2027-06-30")
        judgement = reassess_results(config, assess_checks(config, looks, TODAY).results, TODAY)
        assert (judgement.failed, len(judgement.used_deviations)) == ((), 1), scope
    other = with_deviation("test.platform", "images.web@linux/amd64", "2027-06-30")
    assert reassess_results(other, assess_checks(other, looks, TODAY).results, TODAY).failed


def test_what_is_wrong_for_all_platforms_is_told_once_and_for_some_with_their_names() -> None:
    rule, scope = "container.non-root", "services.web"
    (look,) = merge_platforms(
        {"linux/amd64": [RuleCheck(rule, scope, ("a",))], "linux/arm64": [RuleCheck(rule, scope, ("a", "b"))]}
    )
    assert look.messages == ("a", "b (linux/arm64)")
    assert merge_platforms({"linux/amd64": [RuleCheck(rule, scope)], "linux/arm64": [RuleCheck(rule, scope)]}) == [
        RuleCheck(rule, scope)
    ]


def test_what_was_excused_on_the_day_of_the_test_may_have_expired_on_the_day_of_the_promotion() -> None:
    config = with_deviation("container.egress", "services.web", "2027-06-30")
    results = assess_checks(config, EGRESS, TODAY).results
    assert reassess_results(config, results, datetime.date(2027, 6, 30)).failed == ()
    with pytest.raises(CheckFailedError):
        reassess_results(config, results, datetime.date(2027, 7, 1)).raise_if_failed()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_is_weighed_as_the_catalogue_says(rule: Rule) -> None:
    (result,) = assess_checks(configuration(), [RuleCheck(rule.id, "x", ("seen",))], TODAY).results
    warned = rule.severity == "warning" or rule.enforced_on_promotion
    assert result.outcome == ("warning" if warned else "broken")
    (result,) = reassess_results(configuration(), [result], TODAY).results
    assert result.outcome == ("warning" if rule.severity == "warning" else "broken"), "a promotion waits for no later"
