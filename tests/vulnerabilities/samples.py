"""Answers of scanners as they are published, cut down to a few entries.

grype: the guide "Working with JSON" of https://github.com/anchore/oss-docs for a match, and what `grype db status -o
json` prints at https://github.com/cmu-sei/scir-oss for `descriptor.db.status`; before schema 6, `db` had the date.
trivy: https://github.com/aquasecurity/trivy/blob/main/integration/testdata/debian-buster.json.golden, and
https://github.com/aquasecurity/trivy-db for the metadata of a database.
Debian: https://security-tracker.debian.org/tracker/data/json, written by `bin/tracker_service.py` of the repository
https://salsa.debian.org/security-tracker-team/security-tracker.
"""

from __future__ import annotations

import json
from typing import Any

from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package

GRYPE: dict[str, Any] = {
    "matches": [
        {
            "vulnerability": {
                "id": "CVE-2021-36159",
                "dataSource": "https://security.alpinelinux.org/vuln/CVE-2021-36159",
                "namespace": "alpine:distro:alpine:3.10",
                "severity": "Critical",
                "urls": [],
                "fix": {"versions": ["2.10.7-r0"], "state": "fixed"},
                "advisories": [],
                "risk": 0.9,
            },
            "relatedVulnerabilities": [{"id": "CVE-2021-36159", "namespace": "nvd:cpe", "severity": "Critical"}],
            "matchDetails": [{"type": "exact-direct-match", "matcher": "apk-matcher"}],
            "artifact": {
                "name": "apk-tools",
                "version": "2.10.6-r0",
                "type": "apk",
                "purl": "pkg:apk/alpine/apk-tools@2.10.6-r0?arch=x86_64&distro=alpine-3.10.9",
                "upstreams": [],
            },
        }
    ],
    "source": {"type": "sbom-file", "target": "sbom.json"},
    "distro": {"name": "alpine", "version": "3.10.9", "idLike": []},
    "descriptor": {
        "name": "grype",
        "version": "0.92.2",
        "db": {
            "status": {
                "schemaVersion": "v6.0.2",
                "from": "https://grype.anchore.io/databases/v6/vulnerability-db_v6.0.2.tar.zst",
                "built": "2025-06-04T11:12:37Z",
                "path": "/cache/grype/db/6/vulnerability.db",
                "valid": True,
            }
        },
    },
}
TRIVY: dict[str, Any] = {
    "SchemaVersion": 2,
    "CreatedAt": "2021-08-25T12:20:30.000000005Z",
    "ArtifactName": "sbom.json",
    "ArtifactType": "cyclonedx",
    "Metadata": {"OS": {"Family": "debian", "Name": "10.1"}},
    "Results": [
        {
            "Target": "sbom.json (debian 10.1)",
            "Class": "os-pkgs",
            "Type": "debian",
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-2019-18276",
                    "PkgName": "bash",
                    "InstalledVersion": "5.0-4",
                    "Status": "affected",
                    "SeveritySource": "debian",
                    "Severity": "LOW",
                    "CVSS": {"nvd": {"V3Vector": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", "V3Score": 7.8}},
                },
                {
                    "VulnerabilityID": "CVE-2019-18224",
                    "VendorIDs": ["DSA-4613-1"],
                    "PkgName": "libidn2-0",
                    "InstalledVersion": "2.0.5-1",
                    "FixedVersion": "2.0.5-1+deb10u1",
                    "Status": "fixed",
                    "Severity": "CRITICAL",
                },
            ],
        },
        {"Target": "Python", "Class": "lang-pkgs", "Type": "python-pkg"},
    ],
}
TRIVY_METADATA = {
    "Version": 2,
    "NextUpdate": "2025-06-05T06:15:04.117391463Z",
    "UpdatedAt": "2025-06-04T06:15:04.117391733Z",
    "DownloadedAt": "2025-06-04T09:21:43.271946881Z",
}
TRACKER: dict[str, Any] = {
    "openssl": {
        "CVE-2023-5678": {
            "description": "Issue summary: Generating excessively long X9.42 DH keys …",
            "debianbug": 1055473,
            "scope": "local",
            "releases": {
                "bookworm": {
                    "status": "resolved",
                    "repositories": {"bookworm": "3.0.13-1~deb12u1", "bookworm-security": "3.0.11-1~deb12u2"},
                    "fixed_version": "3.0.13-1~deb12u1",
                    "urgency": "not yet assigned",
                },
                "bullseye": {
                    "status": "open",
                    "repositories": {"bullseye": "1.1.1w-0+deb11u1"},
                    "urgency": "not yet assigned",
                    "nodsa": "Minor issue",
                    "nodsa_reason": "",
                },
            },
        }
    },
    "prototypejs": {
        "CVE-2007-2383": {
            "scope": "remote",
            "releases": {
                "bookworm": {
                    "status": "resolved",
                    "repositories": {"bookworm": "1.7.1-3.1"},
                    "fixed_version": "0",
                    "urgency": "unimportant",
                }
            },
        }
    },
    "bash": {"CVE-2016-2781": {"releases": {"bookworm": {"status": "open", "urgency": "unimportant"}}}},
    "zlib": {
        "CVE-2023-45853": {
            "releases": {
                "bookworm": {
                    "status": "open", "repositories": {"bookworm": "1:1.2.13.dfsg-1"}, "urgency": "high**",
                    "next_point_update": False,
                }
            }
        },
        "TEMP-0000000-F41FA7": {"releases": {"bookworm": {"status": "undetermined", "urgency": "low"}}},
    },
}  # fmt: skip
BOOKWORM = OsRelease(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)", codename="bookworm")


def deb(name: str, version: str, source: str = "", source_version: str = "") -> Package:
    return Package(kind="deb", name=name, version=version, arch="amd64", source=source, source_version=source_version)


def image(*packages: Package, release: OsRelease | None = BOOKWORM) -> ImagePackages:
    """Return an image with these packages."""
    return ImagePackages(packages={"var/lib/dpkg/status": list(packages)}, os_release=release)


def encode(document: object) -> bytes:
    return json.dumps(document).encode()
