"""Compare what the results of checks and rules, the journal and the manifest say of the test run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from lyra_tasks import console
from lyra_tasks.bundle.compared import CONFIGS_PREFIX, ComparedDocuments
from lyra_tasks.bundle.format import layout
from lyra_tasks.digests import hex_part, json_sha256

_RULES_SUITE = "rules"
_SOURCE_RULE = "source.committed"


def compare_tests(documents: ComparedDocuments) -> Iterator[str]:
    """Yield where the results of the checks contradict other documents."""
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


def compare_junit(documents: ComparedDocuments) -> Iterator[str]:
    """Yield where the JUnit document contradicts other documents."""
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


def compare_rules(documents: ComparedDocuments) -> Iterator[str]:
    """Yield where the results of the rules contradict other documents."""
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


def compare_deviations(documents: ComparedDocuments) -> Iterator[str]:
    """Yield where the deviations contradict other documents."""
    deviations, count = documents.json[layout.DEVIATIONS_FILE]["deviations"], documents.manifest.deviations
    if len(deviations) != count:
        yield f"{len(deviations)} deviation(s), but {layout.MANIFEST_FILE} says {count}"
    used = {rule["rule"] for rule in documents.rules if rule["outcome"] == "deviation"}
    for rule in sorted(used ^ {deviation["rule"] for deviation in deviations}):
        yield f"{rule} is {'missing' if rule in used else 'not a deviation'} according to {layout.RULES_FILE}"


def compare_journal(documents: ComparedDocuments) -> Iterator[str]:
    """Yield where the journal contradicts other documents."""
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
    if tested.get("cached", {}) != documents.cached_runs:
        yield f"names other runs that results come from than {layout.TESTS_JSON_FILE}"
    prefix = f"{layout.EVIDENCE_DIRECTORY}/"
    if "files" in tested:  # not in bundles that were promoted before the journal had digests
        digests = {f"{prefix}{name}": hex_part(digest) for name, digest in tested["files"].items()}
        written = {name for name in documents.sums if _is_from_test(name)}
        for name in sorted(digests.keys() | written):
            if digests.get(name) != documents.sums.get(name):
                yield f"{name} is not the file that run {run} wrote"
    if "configs" in tested:
        digests = {f"deploy/{path}": hex_part(digest) for path, digest in tested["configs"].items()}
        for name in sorted(name for name in documents.sums if name.startswith(CONFIGS_PREFIX)):
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
