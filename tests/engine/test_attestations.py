"""What a bundle says of where its images come from, what was tested, and what is in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packageurl import PackageURL

from lyra_tasks.bundle.content.sbom import format_purl
from lyra_tasks.bundle.format import layout
from lyra_tasks.images.scan.packages import OsRelease, Package
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
UBUNTU = OsRelease(id="ubuntu", version="24.04", name="")
ALPINE = OsRelease(id="alpine", version="3.20.1", name="")
DOCKERFILE = 'ARG WORD\nCOPY records /\nRUN --mount=type=secret,id=pass ["/bin/busybox", "true"]\n'
ARGS = 'context = "app"\nargs = { WORD = "a-value-nobody-is-told" }\nsecrets = { pass = "pass" }\n'


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """A project with an argument, a secret, a remote, and packages of every kind."""
    made = make_tiny()
    for name, text in RECORDS.items():
        path = made.root / "app" / "records" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with (made.root / "app/Dockerfile").open("a") as file:
        file.write(DOCKERFILE)
    (made.root / "pass").write_text("a-secret-nobody-is-told")
    made.replace(".lyra.toml", 'context = "app"\n', ARGS)
    made.git("remote", "add", "origin", "git@code.example:team/tiny.git")
    made.commit("records")
    made.git("tag", "v1.0.0")
    yield made
    made.clean()


@pytest.fixture(scope="module")
def promoted(project: Project) -> Outcome:
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    return result


@pytest.fixture(scope="module")
def bundle(project: Project, promoted: Outcome) -> Path:
    (found,) = project.bundles()
    return found


def read(bundle: Path, name: str) -> Any:
    return json.loads((bundle / name).read_text())


def subjects(bundle: Path) -> list[dict[str, Any]]:
    (image,) = read(bundle, layout.MANIFEST_FILE)["images"]
    digest = image["manifest_digest"].removeprefix("sha256:")
    archive = {"name": image["file"], "digest": {"sha256": image["sha256"]}}
    return [archive, {"name": "tiny/web:1.0.0", "digest": {"sha256": digest}}]


def test_provenance_names_commit_and_parameters_by_digest(bundle: Path, project: Project) -> None:
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


def test_nothing_that_is_nobodys_business_is_told(bundle: Path, project: Project) -> None:
    for name in (layout.PROVENANCE_FILE, layout.TEST_RESULT_FILE, layout.sbom_file("web")):
        text = (bundle / name).read_text()
        for word in ("nobody-is-told", str(project.root), "pytest", "docker.sock"):
            assert word not in text, f"{word} is in {name}"


def test_the_verdict_is_a_test_result_about_the_same_images(bundle: Path) -> None:
    statement = read(bundle, layout.TEST_RESULT_FILE)
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["subject"] == subjects(bundle)
    predicate = statement["predicate"]
    assert predicate["result"] == "PASSED"
    assert "the page is there" in predicate["passedTests"]
    assert predicate["failedTests"] == []
    assert len(predicate["configuration"][0]["digest"]["sha256"]) == 64


def test_the_list_of_packages_is_complete_and_valid_cyclonedx(bundle: Path) -> None:
    text = (bundle / layout.sbom_file("web")).read_text()
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_5)
    assert validator.validate_str(text) is None
    components = json.loads(text)["components"]
    assert sorted(each["purl"] for each in components if "purl" in each) == PURLS
    (libc,) = [each for each in components if each["name"] == "libc6"]
    assert libc["evidence"]["occurrences"] == [{"location": "/var/lib/dpkg/status"}]
    assert components[0] == {
        "type": "operating-system",
        "bom-ref": "os:debian",
        "name": "Debian GNU/Linux 12 (bookworm)",
        "version": "12",
    }
    root = json.loads(text)["metadata"]["component"]
    assert (root["name"], root["version"]) == ("tiny/web", "1.0.0")
    assert (
        PackageURL.from_string(root["purl"]).version
        == read(bundle, layout.MANIFEST_FILE)["images"][0]["manifest_digest"]
    )


def test_the_same_image_gives_the_same_bytes_whether_its_layers_are_known_or_not(
    bundle: Path, project: Project, cache: Path, tmp_path: Path
) -> None:
    names = (layout.PROVENANCE_FILE, layout.TEST_RESULT_FILE, layout.sbom_file("web"))
    before = [(bundle / name).read_bytes() for name in names]
    for index in (bundle.parent / "index.json", bundle):
        index.rename(tmp_path / index.name)
    diff_ids = read(tmp_path / bundle.name, layout.MANIFEST_FILE)["images"][0]["diff_ids"]
    known = [cache / "packages" / f"{each.removeprefix('sha256:')}.json" for each in diff_ids]
    assert all(path.is_file() for path in known)
    known[0].unlink()
    known[1].write_text("{ damaged")
    try:
        assert project.lyra("promote").code == 0
        assert [(bundle / name).read_bytes() for name in names] == before
    finally:
        shutil.rmtree(bundle)
        for each in tmp_path.iterdir():
            each.rename(bundle.parent / each.name)


@pytest.mark.parametrize(
    ("package", "release"),
    [
        (Package(kind="deb", name="g++-12", version="4:12.2.0-3~x", arch="amd64"), UBUNTU),
        (Package(kind="deb", name="libc6", version="1.0"), None),
        (Package(kind="apk", name="musl", version="1.2.5-r0", arch="x86_64"), ALPINE),
        (Package(kind="pypi", name="Foo_Bar.Baz", version="1!2.0+local.1"), None),
        (Package(kind="npm", name="@scope/na me", version="1.0.0-rc.1+b"), None),
    ],
)
def test_package_urls_are_what_others_read(package: Package, release: OsRelease | None) -> None:
    url = format_purl(package, release)
    read = PackageURL.from_string(url)
    assert read.to_string() == url
    assert read.version == package.version
    assert read.type == package.kind
