"""Provenance, test results and SBOMs of a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packageurl import PackageURL

from lyra_tasks.bundle.format import layout
from tests.conftest import Outcome, Project

STATUS = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.36-9+deb12u10\n"
RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
RECORDS = {
    "var/lib/dpkg/status": STATUS,
    "etc/os-release": RELEASE,
    "lib/apk/db/installed": "P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n",
    "opt/Foo_Bar-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\n",
    "opt/node_modules/@types/node/package.json": '{"name": "@types/node", "version": "20.1.0"}',
}
PURLS = [
    "pkg:apk/debian/musl@1.2.5-r0?arch=x86_64&distro=debian-12",
    "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
    "pkg:npm/%40types/node@20.1.0",
    "pkg:pypi/foo-bar@1.0",
]
DOCKERFILE = 'ARG WORD\nCOPY records /\nRUN --mount=type=secret,id=pass ["/bin/busybox", "true"]\n'
ARGS = 'context = "app"\nargs = { WORD = "value-that-must-stay-private" }\nsecrets = { pass = "pass" }\n'


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create a project with a build argument, a secret, a remote, packages of every kind and one check."""
    project = make_tiny()
    config = project.root / ".lyra.toml"
    head, mark, checks = config.read_text().partition("[[tests]]")
    config.write_text(head + mark + checks.partition(mark)[0])
    for name, text in RECORDS.items():
        path = project.root / "app" / "records" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with (project.root / "app/Dockerfile").open("a") as file:
        file.write(DOCKERFILE)
    (project.root / "pass").write_text("secret-that-must-stay-private")
    project.replace(".lyra.toml", 'context = "app"\n', ARGS)
    project.git("remote", "add", "origin", "git@code.example:team/tiny.git")
    project.commit("records")
    project.git("tag", "v1.0.0")
    yield project
    project.clean()


@pytest.fixture(scope="module")
def promoted(project: Project) -> Outcome:
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    return result


@pytest.fixture(scope="module")
def bundle(project: Project, promoted: Outcome) -> Path:
    (bundle,) = project.bundles()
    return bundle


def read(bundle: Path, name: str) -> Any:
    return json.loads((bundle / name).read_text())


def subjects(bundle: Path) -> list[dict[str, Any]]:
    manifest = read(bundle, layout.MANIFEST_FILE)
    (image,), (archive,) = manifest["images"], manifest["archives"]
    digest = image["manifest_digest"].removeprefix("sha256:")
    subject = {"name": archive["file"], "digest": {"sha256": archive["sha256"]}}
    return [subject, {"name": "tiny/web:1.0.0", "digest": {"sha256": digest}}]


def test_provenance_names_commit_and_parameters(bundle: Path, project: Project) -> None:
    statement = read(bundle, layout.PROVENANCE_FILE)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == subjects(bundle)
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    commit = project.git("rev-parse", "HEAD").strip()
    assert definition["resolvedDependencies"] == [
        {
            "name": "source",
            "uri": f"git+ssh://git@code.example/team/tiny.git@{commit}",
            "digest": {"gitCommit": commit},
        }
    ]
    assert definition["externalParameters"]["source"]["uncommittedChanges"] is False
    web = definition["externalParameters"]["images"]["web"]
    assert (web["argumentNames"], web["secretNames"]) == (["WORD"], ["pass"])
    assert details["builder"]["id"].startswith("urn:")


def test_attestations_contain_no_private_values(bundle: Path, project: Project) -> None:
    for name in (layout.PROVENANCE_FILE, layout.TEST_RESULT_FILE, layout.sbom_file("web")):
        text = (bundle / name).read_text()
        for private in ("must-stay-private", str(project.root), "pytest", "docker.sock"):
            assert private not in text, f"{private} is in {name}"


def test_test_result_has_the_same_subjects(bundle: Path) -> None:
    statement = read(bundle, layout.TEST_RESULT_FILE)
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["subject"] == subjects(bundle)
    predicate = statement["predicate"]
    assert predicate["result"] == "PASSED"
    assert "the page is there" in predicate["passedTests"]
    assert predicate["failedTests"] == []
    assert len(predicate["configuration"][0]["digest"]["sha256"]) == 64


def test_sbom_is_complete(bundle: Path) -> None:
    text = (bundle / layout.sbom_file("web")).read_text()
    components = json.loads(text)["components"]
    assert sorted(component["purl"] for component in components if "purl" in component) == PURLS
    (libc,) = [component for component in components if component["name"] == "libc6"]
    assert libc["evidence"]["occurrences"] == [{"location": "/var/lib/dpkg/status"}]
    assert components[0] == {
        "type": "operating-system",
        "bom-ref": "os:debian",
        "name": "debian",
        "version": "12",
        "description": "Debian GNU/Linux 12 (bookworm)",
    }
    root = json.loads(text)["metadata"]["component"]
    assert (root["name"], root["version"]) == ("tiny/web", "1.0.0")
    assert (
        PackageURL.from_string(root["purl"]).version
        == read(bundle, layout.MANIFEST_FILE)["images"][0]["manifest_digest"]
    )


def test_sbom_is_reproducible_with_and_without_cache(
    bundle: Path, project: Project, cache: Path, tmp_path: Path
) -> None:
    names = (layout.PROVENANCE_FILE, layout.TEST_RESULT_FILE, layout.sbom_file("web"), layout.spdx_file("web"))
    before = [(bundle / name).read_bytes() for name in names]
    for path in (bundle.parent / "index.json", bundle):
        path.rename(tmp_path / path.name)
    diff_ids = read(tmp_path / bundle.name, layout.MANIFEST_FILE)["images"][0]["diff_ids"]
    cached = [cache / "packages" / f"{diff_id.removeprefix('sha256:')}.json" for diff_id in diff_ids]
    assert all(path.is_file() for path in cached)
    cached[0].unlink()
    cached[1].write_text("{ damaged")
    try:
        assert project.lyra("promote").code == 0
        assert [(bundle / name).read_bytes() for name in names] == before
    finally:
        shutil.rmtree(bundle)
        for path in tmp_path.iterdir():
            path.rename(bundle.parent / path.name)
