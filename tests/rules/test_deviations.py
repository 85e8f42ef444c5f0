from __future__ import annotations

import datetime
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.results.configuration import Rule
from lyra_tasks.rules.catalogue import RULES
from lyra_tasks.rules.deviations import assess_checks, enforce_rules, reassess_results
from lyra_tasks.rules.finding import RuleCheck, merge_platforms
from lyra_tasks.rules.images import check_image_record, check_tested_platform
from lyra_tasks.rules.services import check_capacity, check_service_settings

TODAY = datetime.date(2027, 1, 1)
UNPRIVILEGED = {"User": "10001"}
BOTH = ("linux/amd64", "linux/arm64")
EGRESS = [RuleCheck("container.egress", "services.web", ("egress is allowed",))]


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
        "image": "web", "reference": "shop/web:1", "engine": "e", "image_id": digest, "config_digest": digest,
        "manifest_digest": None, "diff_ids": [], "platform": "linux/amd64", "size": 1000, "commit": "c", "dirty": False,
        "version": "1.0.0", "run": "r", "built_at": "now", "inputs": {}, "bases": {},
    }  # fmt: skip
    return ImageRecord.model_validate(fields | change)


def rules(config: Configuration, image: dict[str, Any], **change: Any) -> list[str]:
    checks = [
        check_capacity(config),
        *check_image_record("web", record(**change), config.proxima),
        *check_service_settings("web", config.services["web"], image),
    ]
    return [check.rule for check in checks if check.messages]


def test_restricted_service_violates_no_rule() -> None:
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
def test_relaxed_service_violates_rule(service: dict[str, Any], image: dict[str, Any], rule: str) -> None:
    assert rules(configuration(**service), image) == [rule]


def test_service_user_overrides_image_user() -> None:
    assert rules(configuration(user="10001"), {"User": "root"}) == []


def test_large_or_foreign_image_violates_rule() -> None:
    assert rules(configuration(), UNPRIVILEGED, size=200 * 1024**2) == ["image.size"]
    assert rules(configuration(), UNPRIVILEGED, platform="linux/arm64") == ["image.platform"]


def test_unpromoted_service_needs_no_capacity() -> None:
    assert check_capacity(configuration(limits={"cpus": 2.5}, promote=False)).messages == ()


def test_violation_without_deviation_fails() -> None:
    with pytest.raises(CheckFailedError) as caught:
        enforce_rules(configuration(), [RuleCheck("container.egress", "services.web", ("egress is allowed",))], TODAY)
    assert caught.value.exit_code == 5
    assert caught.value.details == ("services.web: egress is allowed (rule container.egress)",)


def with_deviation(rule: str, scope: str, expires: str) -> Configuration:
    document = configuration().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Configuration.model_validate(document | {"schema": 1, "deviations": [deviation(rule, scope, expires)]})


@pytest.mark.parametrize("scope", ["services.web", "services.*", "*"])
def test_deviation_covers_its_scope(scope: str) -> None:
    config = with_deviation("container.egress", scope, "2027-01-01")
    report = assess_checks(config, [RuleCheck("container.egress", "services.web", ("egress is allowed",))], TODAY)
    assert not report.failed and report.used_deviations == tuple(config.deviations)


@pytest.mark.parametrize(
    ("rule", "scope"), [("container.non-root", "services.web"), ("container.egress", "services.db")]
)
def test_deviation_for_other_rule_or_scope_does_not_apply(rule: str, scope: str) -> None:
    with pytest.raises(CheckFailedError):
        enforce_rules(
            with_deviation(rule, scope, "2027-01-01"),
            [RuleCheck("container.egress", "services.web", ("egress is allowed",))],
            TODAY,
        )


def test_expired_deviation_fails_with_its_date() -> None:
    config = with_deviation("container.egress", "services.web", "2026-12-31")
    with pytest.raises(CheckFailedError) as caught:
        enforce_rules(config, EGRESS, TODAY)
    assert caught.value.exit_code == 5
    (line,) = caught.value.details
    assert "the deviation from container.egress expired on 2026-12-31" in line


def test_valid_deviation_wins_over_expired_one() -> None:
    document = configuration().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    deviations = [deviation("container.egress", "services.web", day) for day in ("2026-12-31", "2027-06-30")]
    config = Configuration.model_validate(document | {"schema": 1, "deviations": deviations})
    report = assess_checks(config, EGRESS, TODAY)
    assert [result.outcome for result in report.results] == ["deviation"]
    assert [deviation.expires.isoformat() for deviation in report.used_deviations] == ["2027-06-30"]
    assert [deviation.expires.isoformat() for deviation in report.unused_deviations] == ["2026-12-31"]


def test_unused_deviation_is_reported_only_for_checked_rule() -> None:
    config = with_deviation("container.egress", "services.web", "2027-06-30")
    passed = [RuleCheck("container.egress", "services.web")]
    assert assess_checks(config, passed, TODAY).unused_deviations == tuple(config.deviations)
    assert assess_checks(config, [RuleCheck("container.non-root", "services.web")], TODAY).unused_deviations == ()
    assert (
        assess_checks(
            config, [RuleCheck("container.egress", "services.web", skip_reason="no tool")], TODAY
        ).unused_deviations
        == ()
    )


def test_expired_deviation_from_warning_fails() -> None:
    checks = [RuleCheck("image.healthcheck", "services.web", ("no health check",))]
    assert [result.outcome for result in assess_checks(configuration(), checks, TODAY).results] == ["warning"]
    for day, outcome in (("2027-06-30", "deviation"), ("2026-12-31", "failed")):
        config = with_deviation("image.healthcheck", "services.*", day)
        assert [result.outcome for result in assess_checks(config, checks, TODAY).results] == [outcome]


def test_untested_platform_warns_in_test_and_fails_promotion() -> None:
    checks = [
        check_tested_platform(f"web@{platform}", record(platform=platform), ["web@linux/amd64"], "linux/amd64")
        for platform in BOTH
    ]
    results = assess_checks(configuration(), checks, TODAY).results
    assert [result.outcome for result in results] == ["passed", "warning"]
    with pytest.raises(CheckFailedError) as caught:
        reassess_results(configuration(), results, TODAY).raise_if_failed()
    assert caught.value.details[0].startswith("images.web@linux/arm64: not tested: the engine runs linux/amd64")
    assert "then run `test promote`" in caught.value.hint
    for scope in ("images.web@linux/arm64", "images.*@linux/arm64", "images.web"):
        config = with_deviation("test.platform", scope, "2027-06-30")
        report = reassess_results(config, assess_checks(config, checks, TODAY).results, TODAY)
        assert (report.failed, len(report.used_deviations)) == ((), 1), scope
    other = with_deviation("test.platform", "images.web@linux/amd64", "2027-06-30")
    assert reassess_results(other, assess_checks(other, checks, TODAY).results, TODAY).failed


def test_merged_message_names_platforms_unless_all() -> None:
    rule, scope = "container.non-root", "services.web"
    (check,) = merge_platforms(
        {"linux/amd64": [RuleCheck(rule, scope, ("a",))], "linux/arm64": [RuleCheck(rule, scope, ("a", "b"))]}
    )
    assert check.messages == ("a", "b (linux/arm64)")
    assert merge_platforms({"linux/amd64": [RuleCheck(rule, scope)], "linux/arm64": [RuleCheck(rule, scope)]}) == [
        RuleCheck(rule, scope)
    ]


def test_deviation_can_expire_before_promotion() -> None:
    config = with_deviation("container.egress", "services.web", "2027-06-30")
    results = assess_checks(config, EGRESS, TODAY).results
    assert reassess_results(config, results, datetime.date(2027, 6, 30)).failed == ()
    with pytest.raises(CheckFailedError):
        reassess_results(config, results, datetime.date(2027, 7, 1)).raise_if_failed()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_outcome_follows_its_severity(rule: Rule) -> None:
    (result,) = assess_checks(configuration(), [RuleCheck(rule.id, "x", ("message",))], TODAY).results
    is_warning = rule.severity == "warning" or rule.enforced_on_promotion
    assert result.outcome == ("warning" if is_warning else "failed")
    (result,) = reassess_results(configuration(), [result], TODAY).results
    assert result.outcome == ("warning" if rule.severity == "warning" else "failed"), "a promotion enforces all errors"
