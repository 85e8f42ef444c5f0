"""Debian's security tracker as a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lyra_tasks.documents import DocumentError
from lyra_tasks.images.stream.packages import OsRelease, Package
from lyra_tasks.vulnerabilities.debian_tracker import DebianTracker, collect_sources, is_older
from lyra_tasks.vulnerabilities.document import ImageVulnerabilities
from tests.vulnerabilities import samples
from tests.vulnerabilities.samples import deb, image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "tracker.json"
    path.write_text(json.dumps(samples.TRACKER))
    os.utime(path, (1749030000, 1749030000))
    return path


def look_up(data: Path, *packages: Package, release: OsRelease | None = samples.BOOKWORM) -> ImageVulnerabilities:
    packages_of_image = image(*packages, release=release)
    return DebianTracker(data, collect_sources([packages_of_image])).look_up(packages_of_image)


def test_binary_package_is_looked_up_by_its_source(data: Path) -> None:
    found = look_up(data, deb("libssl3", "3.0.11-1~deb12u2", "openssl"), deb("libssl-dev", "9"))
    assert [(item.id, item.severity, item.package, item.fixed_in) for item in found.vulnerabilities] == [
        ("CVE-2023-5678", "unknown", "libssl3", "3.0.13-1~deb12u1")
    ]
    assert (found.packages, found.unknown_packages) == (2, 0)


def test_fixed_version_and_later_ones_are_not_affected(data: Path) -> None:
    for version in ("3.0.13-1~deb12u1", "3.0.15-1~deb12u1", "1:0"):
        assert look_up(data, deb("libssl3", version, "openssl")).vulnerabilities == []


def test_rebuilt_package_is_compared_by_version_of_source(data: Path) -> None:
    package = deb("libssl3", "3.0.13-1~deb12u1+b9", "openssl", "3.0.11-1~deb12u2")
    assert len(look_up(data, package).vulnerabilities) == 1


def test_severity_is_that_of_the_tracker(data: Path) -> None:
    found = look_up(data, deb("zlib1g", "1:1.2.13.dfsg-1", "zlib"), deb("bash", "5.2.15-2"), deb("prototypejs", "1"))
    assert [(item.id, item.severity) for item in found.vulnerabilities] == [
        ("CVE-2023-45853", "high"),
        ("TEMP-0000000-F41FA7", "low"),
        ("CVE-2016-2781", "negligible"),
    ], "one that the release never had is none"


def test_release_without_codename_is_known_by_its_number(data: Path) -> None:
    distroless = OsRelease(id="debian", version="12", name="Distroless")
    assert look_up(data, deb("bash", "5.2.15-2"), release=distroless).vulnerabilities


def test_unknown_release_is_refused(data: Path) -> None:
    with pytest.raises(DocumentError, match="names no release of Debian"):
        look_up(data, deb("bash", "5"), release=OsRelease(id="debian", version="", name="Debian GNU/Linux x/sid"))


def test_other_packages_are_counted_as_unknown(data: Path) -> None:
    python = Package(kind="pypi", name="flask", version="1.0")
    assert look_up(data, python, deb("bash", "5")).unknown_packages == 1
    ubuntu = OsRelease(id="ubuntu", version="24.04", name="Ubuntu 24.04")
    found = look_up(data, deb("bash", "5"), release=ubuntu)
    assert (found.packages, found.unknown_packages, found.vulnerabilities) == (0, 1, [])


def test_date_is_that_of_the_file(data: Path) -> None:
    assert DebianTracker(data, ()).date == "2025-06-04T09:40:00Z"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a"}', '{"a": 1}', '{"a": {}', '{"a": {"CVE-1": []}}',
     '{"a": {"CVE-1": {"releases": {"x": {}}}}}',
     '{"a": ' + '{"b": ' * 99 + "1" + "}" * 99 + "}", '{"a": ' + "[" * 99999],
)  # fmt: skip
def test_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data").write_text(text)
    with pytest.raises((DocumentError, ValueError)):
        DebianTracker(tmp_path / "data", {"a"})


# https://www.debian.org/doc/debian-policy/ch-controlfields.html#version
@pytest.mark.parametrize(
    ("version", "other", "expected"),
    [
        ("1.0~rc1-1", "1.0-1", True),
        ("1.0-1", "1.0-1+deb12u1", True),
        ("1:0.9-1", "2.0-1", False),
        ("1.10-1", "1.9-1", False),
        ("2.36-9+deb12u10", "2.36-9+deb12u4", False),
        ("1.0", "1.0-0", False),
        ("not a version", "1.0", True),
    ],
)
def test_versions_are_compared_as_dpkg_does(version: str, other: str, expected: bool) -> None:
    assert is_older(version, other) is expected
