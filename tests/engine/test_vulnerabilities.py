"""A promotion looks the packages of its images up, and refuses known vulnerabilities."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from tests.conftest import Project

STATUS = (
    "Package: libssl3\nStatus: install ok installed\nSource: openssl\nArchitecture: amd64\nVersion: 3.0.11-1~deb12u2\n"
)
RELEASE = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
ISSUES = {
    "CVE-2024-1": {"releases": {"bookworm": {"status": "open", "urgency": "high"}}},
    "CVE-2024-2": {"releases": {"bookworm": {"status": "open", "urgency": "low"}}},
}
SCAN = '[scan]\ntool = "debian-tracker"\ndatabase = "../tracker.json"\n'


def deviation(expires: date) -> str:
    return (
        '[[deviations]]\nrule = "image.vulnerabilities"\nscope = "images.web:CVE-2024-1"\n'
        f'reason = "not reachable"\nowner = "ada"\nexpires = {expires}\n'
    )


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a tested project with a Debian package."""
    project = make_tiny()
    for name, text in {"var/lib/dpkg/status": STATUS, "etc/os-release": RELEASE}.items():
        path = project.root / "app" / "records" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with (project.root / "app/Dockerfile").open("a") as file:
        file.write("COPY records /\n")
    project.commit("records")
    assert project.lyra("build", "test").code == 0
    yield project
    project.clean()


def append(project: Project, text: str) -> None:
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(text)


def promote(project: Project) -> Path:
    """Promote a snapshot and return its directory."""
    done = project.lyra("promote", "--json")
    assert done.code == 0, done.text
    return Path(json.loads(done.out)["directory"])


def test_vulnerabilities_are_told_refused_and_excepted(project: Project) -> None:
    """Scan with data; what a bundle says without them is in `test_release.py`."""
    append(project, SCAN)
    refused = project.lyra("promote")
    assert refused.code == 5 and "scan: not scanned: debian-tracker: scan.database: " in refused.err

    data = project.root.parent / "tracker.json"
    data.write_text(json.dumps({"openssl": ISSUES}))
    refused = project.lyra("promote")
    assert refused.code == 5
    assert "images.web:CVE-2024-1: high: libssl3 3.0.11-1~deb12u2; no fix known" in refused.err
    assert "CVE-2024-2" not in refused.err and "then run `lyra test promote`" in refused.err

    append(project, deviation(date.today() + timedelta(30)))
    assert project.lyra("test").code == 0
    bundle = promote(project)
    document = json.loads((bundle / layout.VULNERABILITIES_FILE).read_text())
    assert [item["id"] for item in document["images"]["web"]["vulnerabilities"]] == ["CVE-2024-1", "CVE-2024-2"]
    assert document["source"]["database_date"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(data.stat().st_mtime))
    page, report = ((bundle / name).read_text() for name in (layout.SUMMARY_FILE, layout.REPORT_FILE))
    assert "1 high, 1 low, by debian-tracker in data of" in page and "not reachable" in page
    assert "CVE-2024-1" in report and "CVE-2024-2" in report
    assert project.lyra("verify", str(bundle)).code == 0

    old = time.time() - 9 * 86400
    os.utime(data, (old, old))
    refused = project.lyra("promote")
    assert refused.code == 5 and "more than 7 days old (scan.max_age_days)" in refused.err
