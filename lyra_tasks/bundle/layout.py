"""Every name in a promotion bundle, in one place; names are relative to the folder of the version.

Beside the folders of a project's versions lies `INDEX`, the list of them.
"""

from __future__ import annotations

from typing import Final

INDEX = "index.json"

MANIFEST = "manifest.json"
SUMMARY = "PROMOTION.md"
REPORT = "report.html"
CHANGES = "CHANGES.md"
RECEIVE = "receive.sh"
CHECKSUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"

IMAGES = "images"

COMPOSE = "deploy/compose.yaml"
ENV_EXAMPLE = "deploy/.env.example"
ENVIRONMENT = "deploy/environment.json"
CONFIGS = "deploy/configs"

TESTS_XML = "evidence/tests.xml"
TESTS_JSON = "evidence/tests.json"
METRICS = "evidence/metrics.json"
LOGS = "evidence/logs"
CHECKS = "evidence/checks"
PROVENANCE = "evidence/provenance.json"
TEST_RESULT = "evidence/test-result.json"
DEVIATIONS = "evidence/deviations.json"
RULES = "evidence/rules.json"
JOURNAL = "evidence/journal.jsonl"
PREVIOUS = "evidence/previous.json"

# only in a pack
PACK = "pack.json"
DOCUMENTS: Final = "documents.tar.gz"

UNSUMMED = frozenset({CHECKSUMS, SIGNATURE})


def sbom_file(build: str) -> str:
    """What is in an image, as CycloneDX: `evidence/sbom-web.cdx.json`, `evidence/sbom-web@linux-arm64.cdx.json`."""
    return f"evidence/sbom-{build.replace('/', '-')}.cdx.json"


def image_file(image: str, version: str, platform: str) -> str:
    """The archive of an image: `images/web-1.2.0-linux-amd64.tar`."""
    return f"{IMAGES}/{image}-{version}-{platform.replace('/', '-')}.tar"
