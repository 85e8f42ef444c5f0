"""Find where the documents of a bundle that say the same thing disagree, although every checksum fits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import Manifest, read_small_file
from lyra_tasks.digests import hex_part, json_sha256
from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import BundleError
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
)
_CONFIGS_PREFIX = "deploy/configs/"
_RULES_SUITE = "rules"
_SOURCE_RULE = "source.committed"


def find_contradictions(manifest: Manifest, sums: Mapping[str, str], contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the contradictions by document; `contents` are those of the `COMPARED_DOCUMENTS`, `sums` all checksums."""
    problems = dict.fromkeys((name for name in COMPARED_DOCUMENTS if name not in contents), "missing")
    if manifest.source.dirty and not manifest.is_snapshot:
        problems[layout.MANIFEST_FILE] = "a release of uncommitted changes"
    if problems:
        return problems
    try:
        documents = _Documents(manifest, sums, contents)
    except BundleError as error:
        name, _, problem = error.message.partition(": ")
        return {name: problem}
    for name, compare in _COMPARISONS.items():
        try:
            with translate_failures(lambda problem: BundleError(f"not a valid document: {problem}")):
                texts = list(compare(documents))
        except BundleError as error:
            texts = [error.message]
        if texts:
            problems[name] = "; ".join(texts)
    return problems


def find_bundle_contradictions(directory: Path, manifest: Manifest, sums: Mapping[str, str]) -> dict[str, str]:
    """Return the contradictions of the bundle in `directory` by document."""
    paths = {name: directory / name for name in COMPARED_DOCUMENTS if (directory / name).is_file()}
    return find_contradictions(manifest, sums, {name: read_small_file(path) for name, path in paths.items()})


class _Documents:
    """The documents to compare; the results of the checks are by title, those of the rules by rule and scope."""

    def __init__(self, manifest: Manifest, sums: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
        self.manifest, self.sums = manifest, sums
        self.junit = contents[layout.TESTS_XML_FILE]
        self.journal = [
            parse_document(line, dict[str, Any], layout.JOURNAL_FILE)
            for line in contents[layout.JOURNAL_FILE].splitlines()
        ]
        json_names = set(COMPARED_DOCUMENTS) - {layout.TESTS_XML_FILE, layout.JOURNAL_FILE}
        self.json = {name: parse_document(contents[name], dict[str, Any], name) for name in sorted(json_names)}
        self.tests = self.json[layout.TESTS_JSON_FILE]

    @property
    def outcomes(self) -> dict[str, str]:
        """Return the outcomes of the checks by title."""
        checks = self.tests["checks"]
        return {check_title(check["name"], check.get("group", "")): check["outcome"] for check in checks}

    @property
    def rules(self) -> list[dict[str, str]]:
        """Return the rule results that the promotion ended with."""
        return list(self.json[layout.RULES_FILE]["results"])


def _compare_tests(documents: _Documents) -> Iterator[str]:
    manifest, tests, outcomes = documents.manifest, documents.tests, list(documents.outcomes.values())
    if tests["run"] != manifest.run:
        yield f"of run {tests['run']}, but {layout.MANIFEST_FILE} names run {manifest.run}"
    if f"sha256:{json_sha256(tests['set'])}" != manifest.set_digest:
        yield f"of another set than in {layout.MANIFEST_FILE}"
    passed = sum(check["outcome"] == "passed" for check in tests["checks"])
    counts = (passed, len(tests["checks"]) - passed)
    if counts != (manifest.tests.passed, manifest.tests.failed):
        summary = f"{manifest.tests.passed} passed and {manifest.tests.failed} failed"
        yield f"{counts[0]} passed and {counts[1]} failed, but {layout.MANIFEST_FILE} says {summary}"
    if tests["passed"] is not True or set(outcomes) != {"passed"}:
        yield "the test run did not pass, and only what has passed is promoted"
    for build_name, image in manifest.images_by_build.items():
        if tests["set"]["images"].get(build_name) != image.config_digest:
            yield f"tested another image {build_name} than the one in {layout.MANIFEST_FILE}"


def _compare_junit(documents: _Documents) -> Iterator[str]:
    text = documents.junit.decode()
    if "<!DOCTYPE" in text:
        yield "has a document type, which no test run writes"
        return
    root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities to expand
    prefix, tests = f"lyra {documents.manifest.run}", documents.tests
    checks, rules = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for suite in root.iter("testsuite"):
        name = suite.attrib["name"]
        if name == _RULES_SUITE:
            rules += [(case.attrib["classname"], *_read_case(case)) for case in suite.iter("testcase")]
        elif name == prefix or name.startswith(f"{prefix} "):
            group = name.removeprefix(prefix).strip()
            checks += [(group, case.attrib["classname"], *_read_case(case)) for case in suite.iter("testcase")]
        else:
            yield f"the suite {name!r} is not of run {documents.manifest.run}"
    if sorted(checks) != sorted(
        (check.get("group", ""), check["service"], console.sanitize(check["name"]), check["outcome"])
        for check in tests["checks"]
    ):
        yield f"has other results of checks than {layout.TESTS_JSON_FILE}"
    expected_rules = [
        (rule["scope"], rule["rule"], rule["outcome"] if rule["outcome"] in {"failed", "skipped"} else "passed")
        for rule in tests["rules"]
    ]
    if sorted(rules) != sorted(expected_rules):
        yield f"has other results of rules than {layout.TESTS_JSON_FILE}"
    for element in (root, *root.iter("testsuite")):
        cases = [_read_case(case)[1] for case in element.iter("testcase")]
        counts = [len(cases), *(cases.count(outcome) for outcome in ("failed", "error", "skipped"))]
        if [int(element.attrib[key]) for key in ("tests", "failures", "errors", "skipped")] != counts:
            yield f"the counts of {element.attrib.get('name', 'all suites')!r} are not those of its cases"


def _read_case(case: ET.Element) -> tuple[str, str]:
    """Return name and outcome of a JUnit case."""
    outcomes = {"failure": "failed", "error": "error", "skipped": "skipped"}
    outcome = next((outcome for tag, outcome in outcomes.items() if case.find(tag) is not None), "passed")
    return console.sanitize(case.attrib["name"]), outcome


def _compare_rules(documents: _Documents) -> Iterator[str]:
    results = [(rule["rule"], rule["scope"], rule["outcome"]) for rule in documents.rules]
    failed = sorted({rule for rule, _, outcome in results if outcome == "failed"})
    if failed:
        yield f"the rule {failed[0]} failed, and only what keeps all rules is promoted"
    remaining = list(results)
    for rule in documents.tests["rules"]:
        # a promotion enforces more rules than a test, so that a warning may have needed a deviation
        outcomes = ("warning", "deviation") if rule["outcome"] == "warning" else (rule["outcome"],)
        result = next(
            (item for outcome in outcomes if (item := (rule["rule"], rule["scope"], outcome)) in remaining), None
        )
        if result is None:
            yield f"has another outcome of {rule['rule']} for {rule['scope']} than {layout.TESTS_JSON_FILE}"
            return
        remaining.remove(result)
    if documents.manifest.source.dirty and any(result[::2] == (_SOURCE_RULE, "passed") for result in results):
        yield f"{_SOURCE_RULE} passed, but {layout.MANIFEST_FILE} says that changes were not committed"


def _compare_deviations(documents: _Documents) -> Iterator[str]:
    deviations, count = documents.json[layout.DEVIATIONS_FILE]["deviations"], documents.manifest.deviations
    if len(deviations) != count:
        yield f"{len(deviations)} deviation(s), but {layout.MANIFEST_FILE} says {count}"
    used = {rule["rule"] for rule in documents.rules if rule["outcome"] == "deviation"}
    for rule in sorted(used ^ {deviation["rule"] for deviation in deviations}):
        yield f"{rule} is {'missing' if rule in used else 'not a deviation'} according to {layout.RULES_FILE}"


def _compare_journal(documents: _Documents) -> Iterator[str]:
    run, set_digest = documents.manifest.run, hex_part(documents.manifest.set_digest)
    entries = [
        entry["data"]
        for entry in documents.journal
        if (entry["event"], entry["run"], entry["data"].get("set")) == ("tested", run, set_digest)
        and not entry["data"].get("partial")
    ]
    if not entries:
        yield f"has no entry about the test run {run} of this set"
        return
    tested = entries[-1]
    if tested["passed"] is not True:
        yield f"says that run {run} failed"
    if tested["checks"] != documents.outcomes:
        yield f"has other results of checks than {layout.TESTS_JSON_FILE}"
    prefix = f"{layout.EVIDENCE_DIRECTORY}/"
    if "files" in tested:  # not in bundles that were promoted before the journal had digests
        digests = {f"{prefix}{name}": hex_part(digest) for name, digest in tested["files"].items()}
        written = {name for name in documents.sums if _is_from_test(name)}
        for name in sorted(digests.keys() | written):
            if digests.get(name) != documents.sums.get(name):
                yield f"{name} is not the file that run {run} wrote"
    if "configs" in tested:
        digests = {f"deploy/{path}": hex_part(digest) for path, digest in tested["configs"].items()}
        for name in sorted(name for name in documents.sums if name.startswith(_CONFIGS_PREFIX)):
            if digests.get(name) != documents.sums[name]:
                yield f"{name} is not the file that run {run} used"


def _is_from_test(name: str) -> bool:
    """Return whether a file of a bundle was written by the test run itself."""
    directories = (f"{layout.LOGS_DIRECTORY}/", f"{layout.CHECKS_DIRECTORY}/")
    return name.startswith(directories) or name in {
        layout.TESTS_JSON_FILE,
        layout.TESTS_XML_FILE,
        layout.METRICS_FILE,
    }


def _compare_provenance(documents: _Documents) -> Iterator[str]:
    statement, source = documents.json[layout.PROVENANCE_FILE], documents.manifest.source
    yield from _compare_subjects(statement, documents.manifest)
    definition = statement["predicate"]["buildDefinition"]
    if definition["externalParameters"]["source"]["uncommittedChanges"] != source.dirty:
        yield f"disagrees with {layout.MANIFEST_FILE} about uncommitted changes"
    commits = [item["digest"]["gitCommit"] for item in definition["resolvedDependencies"] if item["name"] == "source"]
    if commits != [source.commit]:
        yield f"of another commit than in {layout.MANIFEST_FILE}"


def _compare_test_result(documents: _Documents) -> Iterator[str]:
    statement = documents.json[layout.TEST_RESULT_FILE]
    yield from _compare_subjects(statement, documents.manifest)
    predicate, outcomes = statement["predicate"], documents.outcomes
    passed = sorted(title for title, outcome in outcomes.items() if outcome == "passed")
    if predicate["result"] != "PASSED" or predicate["failedTests"] or sorted(predicate["passedTests"]) != passed:
        yield f"has other results of checks than {layout.TESTS_JSON_FILE}"
    digests = [item["digest"]["sha256"] for item in predicate["configuration"]]
    if digests != [documents.tests["set"]["effective_hash"]]:
        yield f"of another configuration than in {layout.TESTS_JSON_FILE}"


def _compare_subjects(statement: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    subjects = {(subject["name"], subject["digest"]["sha256"]) for subject in statement["subject"]}
    expected = {(archive.file, archive.sha256) for archive in manifest.archives}
    expected |= {(image.references[0], hex_part(image.manifest_digest)) for image in manifest.images}
    if subjects != expected:
        yield f"about other images than in {layout.MANIFEST_FILE}"


def _compare_environment(documents: _Documents) -> Iterator[str]:
    document, manifest = documents.json[layout.ENVIRONMENT_FILE], documents.manifest
    if document["project"] != manifest.project or set(document["services"]) != {
        item.name for item in manifest.services
    }:
        yield f"has other services than {layout.MANIFEST_FILE}"
    configs = {f"deploy/{config['file']}" for service in document["services"].values() for config in service["configs"]}
    for name in sorted(configs ^ {name for name in documents.sums if name.startswith(_CONFIGS_PREFIX)}):
        yield f"{name} is {'missing' if name in configs else 'not described'}"


_COMPARISONS: Mapping[str, Callable[[_Documents], Iterator[str]]] = {
    layout.TESTS_JSON_FILE: _compare_tests,
    layout.TESTS_XML_FILE: _compare_junit,
    layout.RULES_FILE: _compare_rules,
    layout.DEVIATIONS_FILE: _compare_deviations,
    layout.JOURNAL_FILE: _compare_journal,
    layout.PROVENANCE_FILE: _compare_provenance,
    layout.TEST_RESULT_FILE: _compare_test_result,
    layout.ENVIRONMENT_FILE: _compare_environment,
}
