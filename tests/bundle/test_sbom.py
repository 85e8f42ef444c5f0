"""SBOMs from layers and, if configured, from syft."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from lyra_tasks.bundle.content.sbom import build_sbom, run_syft
from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_json
from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package
from tests.bundle.test_receive_script import MANIFEST

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
        run_syft(directory / "web", MANIFEST, MANIFEST.images[0])


def test_syft_sbom_is_made_reproducible(directory: Path) -> None:
    install_syft(directory, f"cat <<END\n{ANSWER}\nEND")
    document = run_syft(directory / "web", MANIFEST, MANIFEST.images[0])
    assert document["components"] == [{"name": f"oci-dir:{directory}/web"}]
    assert document["metadata"]["timestamp"] == MANIFEST.created
    assert document["serialNumber"] != "urn:uuid:random"
    component = document["metadata"]["component"]
    assert (component["bom-ref"], component["name"]) == ("1", "shop/web"), "without the path on this machine"


@pytest.mark.parametrize("text", ["echo no such image >&2; exit 1", "echo '{'", "echo '[]'", "echo '{}'"])
def test_syft_failure_is_reported(directory: Path, text: str) -> None:
    install_syft(directory, text)
    with pytest.raises(PreconditionError, match="syft cannot list the packages of web"):
        run_syft(directory / "web", MANIFEST, MANIFEST.images[0])


def test_temporary_files_of_syft_go_with_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = directory / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    install_syft(
        directory, f'touch "$TMPDIR/stereoscope-1"; echo "$TMPDIR" >{directory}/place; cat <<END\n{ANSWER}\nEND'
    )
    run_syft(directory / "web", MANIFEST, MANIFEST.images[0])
    assert (directory / "place").read_text().startswith(f"{scratch}/")
    assert list(scratch.iterdir()) == []


def test_spdx_document_is_valid_and_complete(tmp_path: Path) -> None:
    packages = ImagePackages(
        packages={
            "var/lib/dpkg/status": [Package(kind="deb", name="libssl3", version="3.0.11-1", source="openssl")],
            "usr/lib/python3/METADATA": [Package(kind="pypi", name="Foo_Bar", version="1.0", license="BSD, see file")],
        },
        os_release=OsRelease(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)"),
    )
    image = MANIFEST.images[0]
    sbom = build_sbom(MANIFEST, image, packages)
    document = convert_to_spdx(sbom, image.manifest_digest)
    assert document == convert_to_spdx(build_sbom(MANIFEST, image, packages), image.manifest_digest)
    path = tmp_path / "sbom.spdx.json"
    write_json(path, document)
    parsed = parse_file(str(path))
    assert validate_full_spdx_document(parsed, "SPDX-2.3") == []
    purls = {package.name: [item.locator for item in package.external_references] for package in parsed.packages}
    assert purls == {item["name"]: [item["purl"]] if "purl" in item else [] for item in sbom["components"]} | {
        "shop/web": [sbom["metadata"]["component"]["purl"]]
    }


def test_source_package_is_named_for_scanners() -> None:
    """The form is that of `pkg/sbom/io/decode.go` of trivy, and of `grype/pkg/purl_provider.go`."""
    package = Package(
        kind="deb", name="libssl3", version="1:3.0.11-1+b1", arch="amd64", source="openssl", source_version="1:3.0.11-1"
    )
    packages = ImagePackages(packages={"var/lib/dpkg/status": [package]}, os_release=None)
    (component,) = build_sbom(MANIFEST, MANIFEST.images[0], packages)["components"]
    assert component["purl"] == "pkg:deb/debian/libssl3@1:3.0.11-1%2Bb1?arch=amd64&upstream=openssl%401:3.0.11-1"
    properties = {item["name"].removeprefix("aquasecurity:trivy:"): item["value"] for item in component["properties"]}
    assert properties == {"SrcName": "openssl", "SrcVersion": "3.0.11", "SrcRelease": "1", "SrcEpoch": "1"}


def test_package_with_several_spellings_is_one_component() -> None:
    first, second = (Package(kind="pypi", name=name, version="1.0") for name in ("Foo_Bar", "foo-bar"))
    licensed = Package(kind="pypi", name="foo-bar", version="1.0", license="MIT")
    packages = ImagePackages(packages={"a": [first], "b": [second], "c": [licensed]}, os_release=None)
    (component,) = build_sbom(MANIFEST, MANIFEST.images[0], packages)["components"]
    assert component["bom-ref"] == component["purl"] == "pkg:pypi/foo-bar@1.0"
    assert component["licenses"] == [{"license": {"name": "MIT"}}]
    assert [occurrence["location"] for occurrence in component["evidence"]["occurrences"]] == ["/a", "/b", "/c"]
