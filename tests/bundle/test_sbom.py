"""SBOMs from layers and, if configured, from syft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from lyra_tasks.bundle.content.sbom import build_sbom
from lyra_tasks.bundle.content.sbom_process import ReleaseName, SbomProcess, SbomRequest, start_sbom_process
from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.bundle.content.syft import run_syft
from lyra_tasks.errors import BundleError, PreconditionError
from lyra_tasks.files import format_json, write_json
from lyra_tasks.images.package_list import build_package_list, create_purl
from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package, list_packages
from tests.bundle.test_receive_script import MANIFEST

RELEASE = ReleaseName("shop", MANIFEST.version, MANIFEST.created)
ANSWER = (
    '{"serialNumber": "urn:uuid:random", "components": [{"name": "$2"}], '
    '"metadata": {"timestamp": "now", "component": {"bom-ref": "1", "name": "$2"}}}'
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def install_syft(directory: Path, text: str) -> None:
    (directory / "syft").write_text(f"#!/bin/sh\n{text}\n")
    (directory / "syft").chmod(0o755)


def test_missing_syft_is_reported(directory: Path) -> None:
    with pytest.raises(PreconditionError, match="syft not found"):
        run_syft(directory / "web", RELEASE, MANIFEST.images[0])


def test_syft_sbom_is_made_reproducible(directory: Path) -> None:
    install_syft(directory, f"cat <<END\n{ANSWER}\nEND")
    document, spdx_document = run_syft(directory / "web", RELEASE, MANIFEST.images[0])
    assert document["components"] == [{"name": f"oci-dir:{directory}/web"}]
    assert document["metadata"]["timestamp"] == MANIFEST.created
    assert document["serialNumber"] != "urn:uuid:random"
    component = document["metadata"]["component"]
    assert (component["bom-ref"], component["name"]) == ("1", "shop/web"), "without the path on this machine"
    assert [package["name"] for package in spdx_document["packages"]] == ["shop/web", f"oci-dir:{directory}/web"]


@pytest.mark.parametrize(
    "text",
    [
        "echo no such image >&2; exit 1",
        "echo '{'",
        "echo '[]'",
        "echo '{}'",
        """echo '{"metadata": {}, "components": [{"version": "1"}]}'""",
        """echo '{"metadata": {}, "components": [{"name": "a", "version": 1}]}'""",
        """echo '{"metadata": {}, "components": null}'""",
    ],
)
def test_syft_failure_is_reported(directory: Path, text: str) -> None:
    install_syft(directory, text)
    with pytest.raises(PreconditionError, match="syft cannot list the packages of web"):
        run_syft(directory / "web", RELEASE, MANIFEST.images[0])


def test_temporary_files_of_syft_go_with_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = directory / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    install_syft(
        directory, f'touch "$TMPDIR/stereoscope-1"; echo "$TMPDIR" >{directory}/place; cat <<END\n{ANSWER}\nEND'
    )
    run_syft(directory / "web", RELEASE, MANIFEST.images[0])
    assert (directory / "place").read_text().startswith(f"{scratch}/")
    assert list(scratch.iterdir()) == []


def list_awkward_packages() -> ImagePackages:
    """Return packages as images have them, and names that no package manager would accept."""
    debs = [
        Package(kind="deb", name="libssl3", version="1:3.0.11-1", arch="amd64", source="openssl"),
        Package(kind="deb", name="Foo & <b>\u00e9\u2028", version="1~x+y#?", arch="all"),
    ]
    others = [
        Package(kind="apk", name="musl", version="1.2.5-r0", arch="x86_64", license="MIT"),
        Package(kind="pypi", name="Foo_Bar", version="1!1.0", license="BSD, see file"),
        Package(kind="npm", name="@scope/na me", version="1.0.0-rc.1+b"),
        *(Package(kind="npm", name=name, version="1") for name in ("/", " ", "@/", "a/b/c", "@a", "%2F", "..")),
    ]
    return ImagePackages(
        packages={"var/lib/dpkg/status": debs, **dict.fromkeys("fedcba", others)},
        os_release=OsRelease(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)"),
    )


def test_process_answers_as_this_one_would(sboms: SbomProcess) -> None:
    image, packages = MANIFEST.images[0], list_awkward_packages()
    sbom = build_sbom(RELEASE, image, packages)
    expected = format_json(sbom), format_json(convert_to_spdx(sbom, image.manifest_digest))
    request = SbomRequest(release=RELEASE, image=image, packages=packages)
    assert [sboms.format(request), sboms.format(request)] == [expected, expected]


def test_process_that_has_ended_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cyclonedx.py").write_text("raise ImportError('damaged')\n")
    monkeypatch.syspath_prepend(tmp_path)
    request = SbomRequest(release=RELEASE, image=MANIFEST.images[0], packages=list_awkward_packages())
    with start_sbom_process() as process, pytest.raises(BundleError, match="web: the process that lists") as caught:
        process.format(request)
    assert caught.value.details[-1] == "ImportError: damaged"


@pytest.mark.parametrize(
    "release", [None, OsRelease(id="", version="", name="Own"), list_awkward_packages().os_release]
)
def test_package_lists_are_valid_by_the_official_schema(release: OsRelease | None) -> None:
    packages = list_awkward_packages().model_copy(update={"os_release": release})
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_5)
    for document in (build_sbom(RELEASE, MANIFEST.images[0], packages), build_package_list("web", packages)):
        assert validator.validate_str(json.dumps(document)) is None
        names = [component["name"] for component in document["components"] if component["type"] == "library"]
        assert names == [package.name for package in list_packages(packages)], "complete, and in this order"
        assert len({component["bom-ref"] for component in document["components"]}) == len(document["components"])


def test_sbom_says_what_it_describes_and_lacks() -> None:
    image = MANIFEST.images[0]
    document = build_sbom(RELEASE, image, list_awkward_packages())
    root = f"{image.references[0]}@{image.manifest_digest}"
    assert document["metadata"]["component"] == {
        "type": "container",
        "bom-ref": root,
        "name": "shop/web",
        "version": MANIFEST.version,
        "purl": f"pkg:oci/web@{image.manifest_digest}",
    }
    assert datetime.fromisoformat(document["metadata"]["timestamp"]) == datetime.fromisoformat(MANIFEST.created)
    assert document["compositions"] == [{"aggregate": "incomplete", "assemblies": [root]}]
    assert "dependencies" not in document, "they are not known"


def test_sbom_is_the_same_in_every_process() -> None:
    program = (
        "from tests.bundle.test_sbom import *\n"
        "sbom = build_sbom(RELEASE, MANIFEST.images[0], list_awkward_packages())\n"
        "print(json.dumps([sbom, convert_to_spdx(sbom, MANIFEST.images[0].manifest_digest)]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
            capture_output=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(outputs) == 1


def test_spdx_document_is_valid_and_complete(tmp_path: Path) -> None:
    image = MANIFEST.images[0]
    sbom = build_sbom(RELEASE, image, list_awkward_packages())
    document = convert_to_spdx(sbom, image.manifest_digest)
    path = tmp_path / "sbom.spdx.json"
    write_json(path, document)
    parsed = parse_file(str(path))
    assert validate_full_spdx_document(parsed, "SPDX-2.3") == []
    assert parsed.creation_info.created.isoformat() == MANIFEST.created.removesuffix("Z")
    purls = [(package.name, [item.locator for item in package.external_references]) for package in parsed.packages]
    components = [sbom["metadata"]["component"], *sbom["components"]]
    assert purls == [(item["name"], [item["purl"]] if "purl" in item else []) for item in components]


def test_spdx_values_are_those_of_the_schema() -> None:
    """The schema of 2.3 has each of these names in one spelling, parsers accept two."""
    image = MANIFEST.images[0]
    document = convert_to_spdx(build_sbom(RELEASE, image, list_awkward_packages()), image.manifest_digest)
    purposes = {package["primaryPackagePurpose"] for package in document["packages"]}
    assert purposes == {"CONTAINER", "OPERATING_SYSTEM", "LIBRARY"}
    references = [reference for package in document["packages"] for reference in package.get("externalRefs", ())]
    assert {reference["referenceCategory"] for reference in references} == {"PACKAGE-MANAGER"}
    (comment,) = [package["licenseComments"] for package in document["packages"] if package["name"] == "Foo_Bar"]
    assert comment == "declared: BSD, see file"


@pytest.mark.parametrize(
    ("package", "release", "url"),
    [
        (
            Package(kind="deb", name="g++-12", version="4:12.2.0-3~x", arch="amd64"),
            OsRelease(id="ubuntu", version="24.04", name=""),
            "pkg:deb/ubuntu/g%2B%2B-12@4:12.2.0-3~x?arch=amd64&distro=ubuntu-24.04",
        ),
        (Package(kind="deb", name="libc6", version="1.0"), None, "pkg:deb/debian/libc6@1.0"),
        (
            Package(kind="deb", name="a", version="1", arch="all", source="b", source_version="1:2~x+y"),
            None,
            "pkg:deb/debian/a@1?arch=all&upstream=b%401:2~x%2By",
        ),
        (
            Package(kind="apk", name="musl", version="1.2.5-r0", arch="x86_64"),
            OsRelease(id="alpine", version="3.20.1", name=""),
            "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1",
        ),
        (
            Package(kind="pypi", name="Foo_Bar.Baz", version="1!2.0+local.1"),
            None,
            "pkg:pypi/foo-bar.baz@1%212.0%2Blocal.1",
        ),
        (
            Package(kind="npm", name="@scope/na me", version="1.0.0-rc.1+b"),
            None,
            "pkg:npm/%40scope/na%20me@1.0.0-rc.1%2Bb",
        ),
        (Package(kind="npm", name="@scope/", version="1"), None, None),
    ],
)
def test_package_url_is_what_scanners_know(package: Package, release: OsRelease | None, url: str | None) -> None:
    created = create_purl(package, release)
    assert (created and created.to_string()) == url


def test_source_package_is_named_for_scanners() -> None:
    """The form is that of `pkg/sbom/io/decode.go` of trivy, and of `grype/pkg/purl_provider.go`."""
    package = Package(
        kind="deb", name="libssl3", version="1:3.0.11-1+b1", arch="amd64", source="openssl", source_version="1:3.0.11-1"
    )
    packages = ImagePackages(packages={"var/lib/dpkg/status": [package]}, os_release=None)
    (component,) = build_sbom(RELEASE, MANIFEST.images[0], packages)["components"]
    assert component["purl"] == "pkg:deb/debian/libssl3@1:3.0.11-1%2Bb1?arch=amd64&upstream=openssl%401:3.0.11-1"
    properties = {item["name"].removeprefix("aquasecurity:trivy:"): item["value"] for item in component["properties"]}
    assert properties == {"SrcName": "openssl", "SrcVersion": "3.0.11", "SrcRelease": "1", "SrcEpoch": "1"}


def test_package_with_several_spellings_is_one_component() -> None:
    first, second = (Package(kind="pypi", name=name, version="1.0") for name in ("Foo_Bar", "foo-bar"))
    licensed = Package(kind="pypi", name="foo-bar", version="1.0", license="MIT")
    packages = ImagePackages(packages={"a": [first], "b": [second], "c": [licensed]}, os_release=None)
    (component,) = build_sbom(RELEASE, MANIFEST.images[0], packages)["components"]
    assert component["bom-ref"] == component["purl"] == "pkg:pypi/foo-bar@1.0"
    assert component["licenses"] == [{"license": {"name": "MIT"}}]
    assert [occurrence["location"] for occurrence in component["evidence"]["occurrences"]] == ["/a", "/b", "/c"]
