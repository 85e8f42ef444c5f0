"""The scan as `[scan]` says, and the rule about it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration, Scan
from lyra_tasks.records.record import dump_record
from lyra_tasks.rules.catalogue import VULNERABILITIES
from lyra_tasks.rules.deviations import assess_checks
from lyra_tasks.rules.vulnerabilities import check_vulnerabilities, describe_counts
from lyra_tasks.vulnerabilities.document import (
    ImageVulnerabilities,
    ScanSource,
    Vulnerability,
    VulnerabilityScan,
)
from lyra_tasks.vulnerabilities.scan import NOT_CONFIGURED, scan_packages
from tests.vulnerabilities import samples
from tests.vulnerabilities.samples import deb, image

TODAY = datetime.date(2026, 11, 29)
SOURCE = ScanSource(tool="grype", version="0.92.2", database_date="2026-11-28T00:00:00Z")
HIGH = Vulnerability(id="CVE-2026-1", severity="high", package="libssl3", version="3.0.1", fixed_in="3.0.2")
OTHER = Vulnerability(id="CVE-2026-1", severity="high", package="openssl", version="3.0.1", fixed_in="3.0.2")
UNRATED = Vulnerability(id="CVE-2026-2", severity="unknown", package="bash", version="5")


def result(*vulnerabilities: Vulnerability, **more: Any) -> VulnerabilityScan:
    images = {"web": ImageVulnerabilities(vulnerabilities=list(vulnerabilities), packages=9)}
    return VulnerabilityScan(**({"source": SOURCE, "fail_on": "high", "images": images} | more))


def configuration(**deviation: str) -> Configuration:
    document: dict[str, Any] = {"schema": 1, "project": {"name": "shop"}}
    if deviation:
        entry = {"rule": VULNERABILITIES, "reason": "no exploit", "owner": "ada", "expires": datetime.date(2027, 1, 1)}
        document["deviations"] = [entry | deviation]
    return Configuration.model_validate(document)


def outcomes(
    scan: VulnerabilityScan, config: Configuration | None = None, today: datetime.date = TODAY
) -> list[tuple[str, str]]:
    report = assess_checks(config or configuration(), check_vulnerabilities(scan), today)
    return [(item.scope, item.outcome) for item in report.results]


def test_vulnerability_of_several_packages_is_one_violation() -> None:
    (check,) = check_vulnerabilities(result(HIGH, OTHER))
    assert check.scope == "images.web:CVE-2026-1"
    assert check.messages == ("high: libssl3 3.0.1, openssl 3.0.1; fixed in 3.0.2",)


def test_deviation_allows_one_vulnerability_until_it_expires() -> None:
    config = configuration(scope="images.web:CVE-2026-1")
    assert outcomes(result(HIGH), config) == [("images.web:CVE-2026-1", "deviation")]
    assert outcomes(result(HIGH), config, datetime.date(2027, 1, 2)) == [("images.web:CVE-2026-1", "failed")]
    later = HIGH.model_copy(update={"id": "CVE-2026-3"})
    assert outcomes(result(later), config) == [("images.web:CVE-2026-3", "failed")]
    assert outcomes(result(later), configuration(scope="images.web")) == [("images.web:CVE-2026-3", "failed")]


def test_deviation_covers_all_platforms_or_one() -> None:
    scan = result(images={"web@linux/arm64": ImageVulnerabilities(vulnerabilities=[HIGH], packages=1)})
    for scope in ("images.web:CVE-2026-1", "images.web:CVE-2026-1@linux/arm64", "images.*:CVE-2026-1"):
        assert outcomes(scan, configuration(scope=scope)) == [("images.web:CVE-2026-1@linux/arm64", "deviation")]


@pytest.mark.parametrize(
    ("fail_on", "expected"),
    [("critical", "passed"), ("high", "failed"), ("negligible", "failed"), ("never", "passed")],
)
def test_severity_decides(fail_on: str, expected: str) -> None:
    assert {outcome for _, outcome in outcomes(result(HIGH, fail_on=fail_on))} == {expected}


def test_unrated_vulnerabilities_are_told_unless_they_count() -> None:
    (check,) = check_vulnerabilities(result(UNRATED))
    assert check.skip_reason == "1 vulnerability without a severity not judged"
    assert outcomes(result(UNRATED, fail_on="unknown")) == [("images.web:CVE-2026-2", "failed")]


def test_project_without_scan_is_told() -> None:
    scan = scan_packages({}, None, Path(), TODAY)
    assert scan.problem == NOT_CONFIGURED
    assert outcomes(scan) == [("scan", "skipped")]


@pytest.mark.parametrize(("fail_on", "expected"), [("high", "failed"), ("never", "skipped")])
def test_missing_tool_fails_if_a_scan_is_demanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_on: str, expected: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "db").mkdir()
    scan = scan_packages({"web": image()}, Scan(tool="grype", database="db", fail_on=fail_on), tmp_path, TODAY)  # type: ignore[arg-type]
    assert scan.problem == "not scanned: grype: grype is not installed"
    assert outcomes(scan) == [("scan", expected)]
    missing = scan_packages({"web": image()}, Scan(tool="trivy", database="none"), tmp_path, TODAY)
    assert missing.problem.startswith("not scanned: trivy: scan.database: ")


def test_old_data_fails_although_it_was_used(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(samples.TRACKER))
    table = Scan(tool="debian-tracker", database="data.json", fail_on="high")
    images = {"web": image(deb("zlib1g", "1:1.2.13.dfsg-1", "zlib"))}
    fresh = scan_packages(images, table, tmp_path, datetime.date.today())
    assert (fresh.problem, describe_counts(fresh)) == ("", "1 high, 1 low")
    old = scan_packages(images, table, tmp_path, datetime.date.today() + datetime.timedelta(8))
    assert "more than 7 days old" in old.problem
    assert outcomes(old) == [("scan", "failed"), ("images.web:CVE-2023-45853", "failed")]
    allowed = configuration(scope="scan")
    assert outcomes(old, allowed)[0] == ("scan", "deviation")


def test_damaged_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[]")
    table = Scan(tool="debian-tracker", database="data.json")
    scan = scan_packages({"web": image(deb("bash", "5"))}, table, tmp_path, TODAY)
    assert scan.problem == "not scanned: debian-tracker: not a JSON object"


def test_document_is_validated_and_reproducible() -> None:
    document = dump_record(result(HIGH, UNRATED))
    assert document["schema"] == "lyra.vulnerabilities/1"
    assert VulnerabilityScan.model_validate(document) == result(HIGH, UNRATED)
    with pytest.raises(ValueError, match="extra"):
        VulnerabilityScan.model_validate(document | {"extra": 1})
