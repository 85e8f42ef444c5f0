"""The documents of a bundle whose claims are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_tasks.bundle.deployment import DescribedDeployment
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.images.oci import parse_document
from lyra_tasks.records.evidence import check_title

COMPARED_DOCUMENTS = (
    layout.TESTS_JSON_FILE,
    layout.TESTS_XML_FILE,
    layout.RULES_FILE,
    layout.DEVIATIONS_FILE,
    layout.JOURNAL_FILE,
    layout.PROVENANCE_FILE,
    layout.TEST_RESULT_FILE,
    layout.ENVIRONMENT_FILE,
    layout.COMPOSE_FILE,
    layout.ENV_EXAMPLE_FILE,
)
_NOT_JSON = frozenset({layout.TESTS_XML_FILE, layout.JOURNAL_FILE, layout.COMPOSE_FILE, layout.ENV_EXAMPLE_FILE})
CONFIGS_PREFIX = "deploy/configs/"


class ComparedDocuments:
    """The documents to compare; the results of the checks are by title, those of the rules by rule and scope."""

    def __init__(self, manifest: Manifest, sums: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
        self.manifest, self.sums = manifest, sums
        self.junit = contents[layout.TESTS_XML_FILE]
        self.journal = [
            parse_document(line, dict[str, Any], layout.JOURNAL_FILE)
            for line in contents[layout.JOURNAL_FILE].splitlines()
        ]
        self.compose, self.env_example = contents[layout.COMPOSE_FILE], contents[layout.ENV_EXAMPLE_FILE]
        json_names = sorted(set(COMPARED_DOCUMENTS) - _NOT_JSON)
        self.json = {name: parse_document(contents[name], dict[str, Any], name) for name in json_names}
        self.tests = self.json[layout.TESTS_JSON_FILE]

    @property
    def outcomes(self) -> dict[str, str]:
        """Return the outcomes of the checks by title."""
        checks = self.tests["checks"]
        return {check_title(check["name"], check.get("group", "")): check["outcome"] for check in checks}

    @property
    def cached_runs(self) -> dict[str, str]:
        """Return the runs that the results of checks come from, if not the run itself, by title."""
        checks = [check for check in self.tests["checks"] if check.get("cached_from")]
        return {check_title(check["name"], check.get("group", "")): check["cached_from"] for check in checks}

    @property
    def deployment(self) -> DescribedDeployment:
        """Return what `environment.json` and the rules say of the services."""
        deviations = {(rule["rule"], rule["scope"]) for rule in self.rules if rule["outcome"] == "deviation"}
        return DescribedDeployment(self.manifest.project, self.json[layout.ENVIRONMENT_FILE]["services"], deviations)

    @property
    def run_details(self) -> Mapping[str, Any]:
        """Return what the provenance says of the promotion: with which version, and which documents it wrote."""
        details: Mapping[str, Any] = self.json[layout.PROVENANCE_FILE]["predicate"]["runDetails"]
        return details

    @property
    def written_digests(self) -> dict[str, str]:
        """Return the digests of the documents as they were written, by name."""
        return {item["name"]: item["digest"]["sha256"] for item in self.run_details["byproducts"]}

    @property
    def rules(self) -> list[dict[str, str]]:
        """Return the rule results that the promotion ended with."""
        return list(self.json[layout.RULES_FILE]["results"])
