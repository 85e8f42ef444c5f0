"""File names of a promotion bundle, relative to the directory of its version.

The index lies beside the directories of a project's versions.
"""

from __future__ import annotations

from typing import Final

INDEX_FILE = "index.json"

MANIFEST_FILE = "manifest.json"
SUMMARY_FILE = "PROMOTION.md"
REPORT_FILE = "report.html"
CHANGES_FILE = "CHANGES.md"
RECEIVE_SCRIPT = "receive.sh"
CHECKSUMS_FILE = "SHA256SUMS"
SIGNATURE_FILE = "SHA256SUMS.sig"

IMAGES_DIRECTORY = "images"

COMPOSE_FILE = "deploy/compose.yaml"
ENV_EXAMPLE_FILE = "deploy/.env.example"
ENVIRONMENT_FILE = "deploy/environment.json"

EVIDENCE_DIRECTORY = "evidence"
TESTS_XML_FILE = "evidence/tests.xml"
TESTS_JSON_FILE = "evidence/tests.json"
METRICS_FILE = "evidence/metrics.json"
LOGS_DIRECTORY = "evidence/logs"
CHECKS_DIRECTORY = "evidence/checks"
PROVENANCE_FILE = "evidence/provenance.json"
TEST_RESULT_FILE = "evidence/test-result.json"
VULNERABILITIES_FILE = "evidence/vulnerabilities.json"
DEVIATIONS_FILE = "evidence/deviations.json"
RULES_FILE = "evidence/rules.json"
JOURNAL_FILE = "evidence/journal.jsonl"
PREVIOUS_FILE = "evidence/previous.json"

# Only in a pack.
PACK_FILE = "pack.json"
DOCUMENTS_FILE: Final = "documents.tar.gz"

NOT_IN_CHECKSUMS = frozenset({CHECKSUMS_FILE, SIGNATURE_FILE})


def sbom_file(build: str) -> str:
    """Return the SBOM of a build: `evidence/sbom-web.cdx.json`, `evidence/sbom-web@linux-arm64.cdx.json`."""
    return f"evidence/sbom-{build.replace('/', '-')}.cdx.json"


def spdx_file(build: str) -> str:
    """Return the SBOM of a build in SPDX: `evidence/sbom-web.spdx.json`."""
    return sbom_file(build).replace(".cdx.json", ".spdx.json")


def archive_file(project: str, version: str, platform: str) -> str:
    """Return the archive of all images for a platform: `images/shop-1.2.0-linux-amd64.tar`."""
    return f"{IMAGES_DIRECTORY}/{project}-{version}-{platform.replace('/', '-')}.tar"
