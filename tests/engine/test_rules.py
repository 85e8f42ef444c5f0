"""Every rule with a violation and a pass: images as built, containers as created.

Violations in the configuration are in tests/rules and tests/config, those that fail a build in test_faults_lab.py.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lyra_tasks.config.models import Service
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects import containers
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.catalogue import RULES
from lyra_tasks.rules.services import check_container
from tests.conftest import Outcome, Project

SECRET = "s3cr3t value/of the+build"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"

GOOD = """ARG BASE=local-base:1
FROM ${BASE}
ENV GREETING=hello
COPY --chown=65534:65534 data /data
COPY www /www
USER 65534:65534
EXPOSE 8080
VOLUME ["/data"]
HEALTHCHECK --interval=2s CMD ["/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
"""
BAD = f"""ARG BASE=local-base:1
FROM ${{BASE}}
ARG DEPLOY_PASSWORD=letmein
ENV API_TOKEN=abcdef UNDOCUMENTED=1
LABEL note="{quote(SECRET, safe="")}"
COPY --chown=65534:65534 data /data
ADD bad /bad
RUN ["/bin/busybox", "chmod", "4755", "/bad/tool", "/bad/removed", "/bad/fixed"]
RUN ["/bin/busybox", "chmod", "0755", "/bad/fixed"]
RUN ["/bin/busybox", "rm", "/bad/removed", "/bad/deleted"]
EXPOSE 9999
VOLUME ["/undocumented"]
"""
FOREIGN = """FROM scratch
COPY foreign /
USER 65534:65534
"""
S390X = b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x02\x00\x16" + bytes(44)
CONFIG = """schema = 1
[project]
name = "tiny"
description = "good ones, and bad ones"

[bases.base]
archive = "bases/base.tar"

[images.good]
context = "app"
bases = { "local-base:1" = "base" }

[services.good]
image = "good"
ports = { http = 8080 }
limits = { cpus = 0.2, memory = "16m", pids = 16, disk = "8m" }
environment = { GREETING = { default = "hello", description = "the first line" } }
volumes = { data = { path = "/data", size = "4m", owner = "65534:65534", description = "what is kept" } }

[[tests]]
name = "the page is there"
service = "good"
http = "GET /"
"""
ADDED = """
[images.bad]
context = "app"
dockerfile = "Dockerfile.bad"
bases = { "local-base:1" = "base" }
secrets = { pass = "pass" }

[images.bad-platform]
context = "app"
dockerfile = "Dockerfile.platform"

[services.bad]
image = "bad"
read_only = false
egress = true
cap_add = ["CHOWN"]
limits = { cpus = 0.2, memory = "16m", pids = 16, disk = "16m" }
environment = { SAID = { default = "nothing" } }

[services.bad.volumes]
wrong = { path = "/data", size = "4m", owner = "1:1", description = "whose is it" }
none = { path = "/nowhere", size = "4m", owner = "1:1", description = "where is it" }
"""
# rule -> messages about the bad image or service
VIOLATIONS = {
    catalogue.DOCKERFILE_LINT: [f"app/Dockerfile.bad:{line}" for line in ("3: DL3064", "4: DL3064", "7: DL3020")],
    catalogue.IMAGE_PLATFORM: ["labelled as linux/amd64, but all its programs are for s390x"],
    catalogue.HEALTHCHECK: ["no health check on Proxima"],
    catalogue.IMAGE_SECRETS: [
        "contains secret images.bad.secrets.pass (URL-encoded) in the configuration, config, Labels, note",
        "contains secret images.bad.secrets.pass (URL-encoded) in the configuration, history",
        "contains secret images.bad.secrets.pass (verbatim) in layer 3: /bad/deleted",
        "contains secret images.bad.secrets.pass (base64) in layer 3: /bad/encoded",
    ],
    catalogue.SECRET_NAMES: ["ENV API_TOKEN is named like a secret", "ARG DEPLOY_PASSWORD is named like a secret"],
    catalogue.SETUID: ["/bad/tool has mode 4755"],
    catalogue.IMAGE_TOKENS: ["/bad/notes:2: GitHub Token"],
    catalogue.VOLUME_OWNER: [
        "volume wrong: owner of /data is 65534:65534 in the image, declared: 1:1",
        "volume none: the image has no directory /nowhere",
    ],
    catalogue.CAPABILITIES: ["keeps the capabilities CHOWN"],
    catalogue.EGRESS: ["egress is allowed"],
    catalogue.NON_ROOT: ["runs as root"],
    catalogue.READ_ONLY: ["root file system is writable"],
    catalogue.DOCS_COMPLETE: [
        "the image's ENV API_TOKEN is not in environment",
        "the image's ENV UNDOCUMENTED is not in environment",
        "the image's VOLUME /undocumented is neither in volumes nor in tmpfs",
        "the image's EXPOSE 9999/tcp is not in ports",
    ],
    catalogue.DOCS_DESCRIBED: ["environment.SAID has no description"],
}
WARNING_RULES = {rule.id for rule in RULES if rule.severity == "warning"}


@dataclass(frozen=True)
class CheckedRun:
    """A command with its outcome and the rule results by scope and rule."""

    outcome: Outcome
    directory: Path
    rules: Mapping[tuple[str, str], list[tuple[str, str]]]


def run_and_read_rules(project: Project, *arguments: str) -> CheckedRun:
    outcome = project.lyra(*arguments)
    directory = max((project.root / ".lyra" / "runs").glob("*/tests.json"), key=lambda path: path.parent.name).parent
    rules: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for result in json.loads((directory / "tests.json").read_text())["rules"]:
        rules.setdefault((result["scope"], result["rule"]), []).append((result["outcome"], result["message"]))
    return CheckedRun(outcome, directory, rules)


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project], engine: Engine, busybox: Path) -> Iterator[Project]:
    """A project with a good and a bad image, on a base with a setuid program of its own."""
    project = make_tiny()
    (project.root / "bases").mkdir()
    (project.root / "bases" / "base.tar").write_bytes(base_archive(engine, busybox))
    app = project.root / "app"
    (app / "Dockerfile").write_text(GOOD)
    (app / "Dockerfile.bad").write_text(BAD)
    (app / "Dockerfile.platform").write_text(FOREIGN)
    (app / "foreign").mkdir()
    (app / "foreign" / "program").write_bytes(S390X)
    (app / "foreign" / "program").chmod(0o755)
    bad = app / "bad"
    bad.mkdir()
    for name in ("tool", "removed", "fixed"):
        (bad / name).write_text("#!/bin/sh\n")
    (bad / "deleted").write_text(f"password = {SECRET}\n")
    (bad / "encoded").write_bytes(base64.b64encode(b"x" + SECRET.encode() + b"yz"))
    (bad / "notes").write_text(f"nothing here\ntoken: {TOKEN}\n")
    (project.root / "pass").write_text(f"{SECRET}\n")
    (project.root / ".gitignore").write_text("pass\n")
    (project.root / ".lyra.toml").write_text(CONFIG + ADDED)
    project.git("remote", "add", "origin", "git@code.example:team/tiny.git")
    project.commit("seeds")
    yield project
    project.clean()


@pytest.fixture(scope="module")
def both(project: Project) -> CheckedRun:
    """A test of the good and the bad image together."""
    assert project.lyra("build").code == 0
    return run_and_read_rules(project, "test")


@pytest.fixture(scope="module")
def good(project: Project, both: CheckedRun) -> CheckedRun:
    """A test and a promotion of the good image alone, with an uncommitted configuration."""
    (project.root / ".lyra.toml").write_text(CONFIG)
    return run_and_read_rules(project, "test", "promote")


def base_archive(engine: Engine, busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(busybox, "bin")
        entry = tarfile.TarInfo("bin/su")
        entry.mode = 0o4755
        archive.addfile(entry)
    engine.api.import_image_from_data(buffer.getvalue(), repository="local-base", tag="1")
    try:
        return b"".join(engine.api.get_image("local-base:1"))
    finally:
        engine.api.remove_image("local-base:1")


@pytest.mark.parametrize("rule", VIOLATIONS)
def test_bad_image_violates_rule_with_message(both: CheckedRun, rule: str) -> None:
    results = [
        result
        for (scope, name), scope_results in both.rules.items()
        if name == rule and "bad" in scope
        for result in scope_results
    ]
    results = [result for result in results if result[0] != "passed"]
    outcome = "warning" if rule in WARNING_RULES else "failed"
    for expected in VIOLATIONS[rule]:
        assert any(kind == outcome and message.startswith(expected) for kind, message in results), results
    assert len(results) == len(VIOLATIONS[rule]), results
    if outcome == "failed":
        assert all(message in both.outcome.err for _, message in results)


def test_good_image_passes_every_rule(both: CheckedRun, good: CheckedRun) -> None:
    assert both.outcome.code == 5
    violated = {rule for (scope, rule), results in both.rules.items() for kind, _ in results if kind != "passed"}
    assert violated == set(VIOLATIONS)
    assert good.outcome.code == 0, good.outcome.text
    assert {key: results for key, results in good.rules.items() if {kind for kind, _ in results} != {"passed"}} == {}
    checked = {rule for _, rule in good.rules}
    assert checked == {rule.id for rule in RULES} - {
        catalogue.SOURCE_COMMITTED,
        catalogue.TESTS_FRESH,
        catalogue.TESTS_PASSED,
        catalogue.VULNERABILITIES,
    }


def test_image_from_unpinned_base_violates_rule(good: CheckedRun, project: Project) -> None:
    (record,) = project.state.glob("*/images/good@*.json")
    before = record.read_text()
    (digest,) = json.loads(before)["bases"].values()
    record.write_text(before.replace(digest, f"sha256:{'1' * 64}"))
    try:
        run = run_and_read_rules(project, "test")
    finally:
        record.write_text(before)
    assert run.outcome.code == 5, run.outcome.text
    violations = {key: results for key, results in run.rules.items() if {kind for kind, _ in results} != {"passed"}}
    message = "FROM local-base:1 was not built from the pinned digest"
    assert violations == {("images.good", catalogue.BASE_LOCKED): [("failed", message)]}
    assert run_and_read_rules(project, "test").outcome.code == 0


def test_violations_are_recorded_and_no_service_is_started(both: CheckedRun, project: Project) -> None:
    suites = {suite.get("name"): suite for suite in ET.parse(both.directory / "tests.xml").getroot()}
    rules = suites["rules"]
    assert int(str(rules.get("failures"))) == sum(
        kind == "failed" for results in both.rules.values() for kind, _ in results
    )
    assert {case.get("name") for case in rules if case.find("failure") is not None} == set(VIOLATIONS) - WARNING_RULES
    assert SECRET not in both.outcome.text + (both.directory / "tests.json").read_text()
    (journal,) = project.state.glob("*/journal.jsonl")
    (entry,) = [json.loads(line) for line in journal.read_text().splitlines() if '"event":"tested"' in line][:1]
    assert entry["data"]["passed"] is False
    assert "ready after" not in both.outcome.text
    assert not [path for path in (both.directory / "logs").glob("*.log") if path.stat().st_size]


def test_bundle_lists_rule_results_and_uncommitted_source(good: CheckedRun, project: Project) -> None:
    (bundle,) = project.bundles()
    results = json.loads((bundle / "evidence" / "rules.json").read_text())["results"]
    assert [result["rule"] for result in results if result["outcome"] != "passed"] == [
        catalogue.SOURCE_COMMITTED,
        catalogue.VULNERABILITIES,
    ]
    assert "not committed: .lyra.lock.toml, .lyra.toml (rule source.committed)" in good.outcome.err
    page = (bundle / "PROMOTION.md").read_text()
    assert "| warning | `source.committed` | source | not committed: .lyra.lock.toml, .lyra.toml |" in page
    assert {result["rule"] for result in results} == {rule.id for rule in RULES}


def test_image_is_scanned_again_only_for_other_secrets(good: CheckedRun, project: Project) -> None:
    assert "scanning" not in project.lyra("test", "--dry-run").err
    config = project.root / ".lyra.toml"
    secret = '[services.good.secrets.key]\npath = "/run/key"\ndescription = "x"\ntest_value = "another-secret"\n'
    config.write_text(CONFIG + secret)
    assert "scanning good" in project.lyra("test", "--dry-run").err
    config.write_text(CONFIG)


def test_changed_rule_set_makes_evidence_stale(good: CheckedRun, project: Project) -> None:
    (state,) = project.state.glob("*/evidence")
    passed = [path for path in state.glob("*/evidence.json") if json.loads(path.read_text())["passed"]]
    evidence = max(passed, key=lambda path: path.parent.name)
    result = project.lyra("explain")
    assert "nothing blocks a promotion" in result.out, result.text
    text = evidence.read_text()
    before = json.loads(text)["part_hashes"]["rules"]
    pointers = (state / "sets").rename(state.parent / "sets-aside")
    try:
        evidence.write_text(text.replace(before, "1-other"))
        assert project.lyra("promote").code == 3
        result = project.lyra("explain")
        assert f"the rules changed from 1-other to {before}" in result.out, result.text
        assert "next: `lyra test promote`" in result.out
    finally:
        evidence.write_text(text)
        pointers.rename(state / "sets")


_LIMITS = {"Memory": 16 << 20, "MemorySwap": 16 << 20, "NanoCpus": 100_000_000, "PidsLimit": 8}
_RESTRICTED: dict[str, Any] = {
    "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "NetworkMode": "none",
    "IpcMode": "private", **_LIMITS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, ""),
        ({"Memory": 0, "MemorySwap": 0}, catalogue.CONTAINER_LIMITS),
        ({"MemorySwap": 32 << 20}, catalogue.CONTAINER_LIMITS),
        ({"NanoCpus": 0}, catalogue.CONTAINER_LIMITS),
        ({"PidsLimit": 0}, catalogue.CONTAINER_LIMITS),
        ({"Binds": ["/tmp:/host:ro"]}, catalogue.HOST_MOUNTS),
        ({"Mounts": [{"Type": "bind", "Source": "/run", "Target": "/run"}]}, catalogue.HOST_MOUNTS),
        ({"Privileged": True}, catalogue.PRIVILEGED),
        ({"PidMode": "host"}, catalogue.PRIVILEGED),
        ({"NetworkMode": "host"}, catalogue.PRIVILEGED),
        ({"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]},
         catalogue.PRIVILEGED),
        ({"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]}, catalogue.PRIVILEGED),
        ({"SecurityOpt": []}, catalogue.NO_NEW_PRIVILEGES),
        ({"ReadonlyRootfs": False}, catalogue.READ_ONLY),
        ({"CapDrop": []}, catalogue.CAPABILITIES),
        ({"CapAdd": ["SYS_ADMIN"]}, catalogue.CAPABILITIES),
    ],
)  # fmt: skip
def test_container_is_checked_as_the_engine_created_it(
    project: Project, both: CheckedRun, engine: Engine, change: dict[str, Any], rule: str
) -> None:
    image = next(tag for image in engine.api.images() for tag in image["RepoTags"] or [] if tag.startswith("tiny/good"))
    container = engine.api.create_container_from_config(
        {"Image": image, "HostConfig": {**_RESTRICTED, **change}}, "checked"
    )
    try:
        checks = list(check_container("x", Service(image="x"), containers.read_host_config(engine, container["Id"])))
    finally:
        engine.api.remove_container(container["Id"], v=True)
    assert [check.rule for check in checks if check.messages] == ([rule] if rule else []), checks
