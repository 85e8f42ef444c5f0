from __future__ import annotations

import datetime
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.errors import VerdictError
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.deviations import Breach, breaches_of, capacity_breaches, require_reasons

TODAY = datetime.date(2027, 1, 1)
UNPRIVILEGED = {"User": "10001"}


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
    return [breach.rule for breach in breaches_of(config, {"web": record(**change)}, {"web": image})]


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
    assert list(capacity_breaches(configuration(limits={"cpus": 2.5}, promote=False))) == []


def test_a_breach_without_a_reason_is_refused_and_named() -> None:
    with pytest.raises(VerdictError) as caught:
        require_reasons(configuration(), [Breach("container.egress", "services.web", "it has a way out")], TODAY)
    assert caught.value.exit_code == 5
    assert caught.value.details == ("services.web: it has a way out (rule container.egress)",)


def with_deviation(rule: str, scope: str, expires: str) -> Configuration:
    document = configuration().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Configuration.model_validate(document | {"schema": 1, "deviations": [deviation(rule, scope, expires)]})


@pytest.mark.parametrize("scope", ["services.web", "services.*", "*"])
def test_a_written_reason_covers_its_rule_in_its_scope(scope: str) -> None:
    config = with_deviation("container.egress", scope, "2027-01-01")
    used = require_reasons(config, [Breach("container.egress", "services.web", "it has a way out")], TODAY)
    assert used == tuple(config.deviations)


@pytest.mark.parametrize(
    ("rule", "scope"), [("container.non-root", "services.web"), ("container.egress", "services.db")]
)
def test_a_reason_for_something_else_does_not_help(rule: str, scope: str) -> None:
    with pytest.raises(VerdictError):
        require_reasons(
            with_deviation(rule, scope, "2027-01-01"),
            [Breach("container.egress", "services.web", "it has a way out")],
            TODAY,
        )


def test_an_expired_reason_fails_and_says_when_it_expired() -> None:
    config = with_deviation("container.egress", "services.web", "2026-12-31")
    with pytest.raises(VerdictError) as caught:
        require_reasons(config, [Breach("container.egress", "services.web", "it has a way out")], TODAY)
    assert caught.value.details == ("services.web: the deviation from container.egress expired on 2026-12-31",)
