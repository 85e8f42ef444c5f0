"""Find where the documents of a bundle that say the same thing disagree, although every checksum fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.compared import COMPARED_DOCUMENTS, CONFIGS_PREFIX, ComparedDocuments
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.deployment import compare_compose_file, compare_env_example
from lyra_tasks.bundle.evidence import (
    compare_deviations,
    compare_journal,
    compare_junit,
    compare_rules,
    compare_tests,
)
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import Manifest, read_small_file
from lyra_tasks.digests import hex_part, sha256_hex
from lyra_tasks.documents import parse_yaml, translate_failures
from lyra_tasks.errors import BundleError
from lyra_tasks.version import __version__


def find_contradictions(manifest: Manifest, sums: Mapping[str, str], contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the contradictions by document; `contents` are those of the `COMPARED_DOCUMENTS`, `sums` all checksums."""
    problems = dict.fromkeys((name for name in COMPARED_DOCUMENTS if name not in contents), "missing")
    if manifest.source.dirty and not manifest.is_snapshot:
        problems[layout.MANIFEST_FILE] = "a release of uncommitted changes"
    if problems:
        return problems
    try:
        documents = ComparedDocuments(manifest, sums, contents)
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
    return _find_changed_documents(documents) | problems


def find_bundle_contradictions(directory: Path, manifest: Manifest, sums: Mapping[str, str]) -> dict[str, str]:
    """Return the contradictions of the bundle in `directory` by document."""
    paths = {name: directory / name for name in COMPARED_DOCUMENTS if (directory / name).is_file()}
    return find_contradictions(manifest, sums, {name: read_small_file(path) for name, path in paths.items()})


def _find_changed_documents(documents: ComparedDocuments) -> dict[str, str]:
    """Return the problem of each document that is not the one which the provenance names."""
    try:
        with translate_failures(lambda problem: BundleError(f"not a valid document: {problem}")):
            written = {str(name): digest for name, digest in documents.written_digests.items()}
    except BundleError as error:
        return {layout.PROVENANCE_FILE: error.message}
    names = documents.sums.keys() - documents.manifest.archives_by_file.keys() - {layout.PROVENANCE_FILE}
    changed = {name for name in written.keys() | names if written.get(name) != documents.sums.get(name)}
    return dict.fromkeys(changed, f"not the file that was promoted, according to {layout.PROVENANCE_FILE}")


def _compare_provenance(documents: ComparedDocuments) -> Iterator[str]:
    statement, source = documents.json[layout.PROVENANCE_FILE], documents.manifest.source
    yield from _compare_subjects(statement, documents.manifest)
    definition = statement["predicate"]["buildDefinition"]
    if definition["externalParameters"]["source"]["uncommittedChanges"] != source.dirty:
        yield f"disagrees with {layout.MANIFEST_FILE} about uncommitted changes"
    commits = [item["digest"]["gitCommit"] for item in definition["resolvedDependencies"] if item["name"] == "source"]
    if commits != [source.commit]:
        yield f"of another commit than in {layout.MANIFEST_FILE}"
    if not documents.written_digests or not documents.run_details["builder"]["version"]:
        yield "does not name the documents of the promotion"


def _compare_test_result(documents: ComparedDocuments) -> Iterator[str]:
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


def _compare_environment(documents: ComparedDocuments) -> Iterator[str]:
    document, manifest = documents.json[layout.ENVIRONMENT_FILE], documents.manifest
    if document["project"] != manifest.project or set(document["services"]) != {
        item.name for item in manifest.services
    }:
        yield f"has other services than {layout.MANIFEST_FILE}"
    configs = {f"deploy/{config['file']}" for service in document["services"].values() for config in service["configs"]}
    references = {service: image.references for image in manifest.images for service in image.services}
    for service, description in document["services"].items():
        if description["image"] not in references.get(service, ()):
            yield f"{console.escape(service)} has another image than in {layout.MANIFEST_FILE}"
    for name in sorted(configs ^ {name for name in documents.sums if name.startswith(CONFIGS_PREFIX)}):
        yield f"{name} is {'missing' if name in configs else 'not described'}"


def _compare_compose(documents: ComparedDocuments) -> Iterator[str]:
    compose, _ = parse_yaml(documents.compose.decode())
    yield from compare_compose_file(compose, documents.deployment)


def _compare_env_example(documents: ComparedDocuments) -> Iterator[str]:
    yield from compare_env_example(documents.env_example.decode(), documents.compose.decode(), documents.deployment)


def _compare_receive_script(documents: ComparedDocuments) -> Iterator[str]:
    """Compare the script with one that is rendered anew, if this version has written it."""
    if documents.run_details["builder"]["version"].get("lyra-tasks") == __version__:
        expected = sha256_hex(render_receive_script(documents.manifest).encode())
        if documents.sums.get(layout.RECEIVE_SCRIPT) != expected:
            yield f"not the script for the images in {layout.MANIFEST_FILE}"


_COMPARISONS: Mapping[str, Callable[[ComparedDocuments], Iterator[str]]] = {
    layout.TESTS_JSON_FILE: compare_tests,
    layout.TESTS_XML_FILE: compare_junit,
    layout.RULES_FILE: compare_rules,
    layout.DEVIATIONS_FILE: compare_deviations,
    layout.JOURNAL_FILE: compare_journal,
    layout.PROVENANCE_FILE: _compare_provenance,
    layout.TEST_RESULT_FILE: _compare_test_result,
    layout.ENVIRONMENT_FILE: _compare_environment,
    layout.COMPOSE_FILE: _compare_compose,
    layout.ENV_EXAMPLE_FILE: _compare_env_example,
    layout.RECEIVE_SCRIPT: _compare_receive_script,
}
