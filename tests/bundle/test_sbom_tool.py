"""Where a program of the name is on PATH, it makes the list of packages, or is told to have failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.bundle.content.sbom import build_sbom, run_syft
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.scan.packages import ImagePackages, Package
from tests.bundle.test_receive_script import MANIFEST

ANSWER = (
    '{"serialNumber": "urn:uuid:random", "components": [{"name": "$2"}], '
    '"metadata": {"timestamp": "now", "component": {"bom-ref": "1", "name": "$2"}}}'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def program(folder: Path, text: str) -> None:
    (folder / "syft").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "syft").chmod(0o755)


def test_without_it_the_list_is_our_own(folder: Path) -> None:
    assert run_syft(folder / "web.tar", MANIFEST, MANIFEST.images[0]) is None


def test_its_list_is_taken_without_its_time_and_its_random_number(folder: Path) -> None:
    program(folder, f"cat <<END\n{ANSWER}\nEND")
    found = run_syft(folder / "web.tar", MANIFEST, MANIFEST.images[0])
    assert found is not None
    assert found["components"] == [{"name": f"oci-archive:{folder}/web.tar"}]
    assert found["metadata"]["timestamp"] == MANIFEST.created
    assert found["serialNumber"] != "urn:uuid:random"
    component = found["metadata"]["component"]
    assert (component["bom-ref"], component["name"]) == ("1", "shop/web"), "and without the path of this machine"


@pytest.mark.parametrize("text", ["echo no such image >&2; exit 1", "echo '{'", "echo '[]'", "echo '{}'"])
def test_its_failure_is_told(folder: Path, text: str) -> None:
    program(folder, text)
    with pytest.raises(PreconditionError, match="syft could not list what is in web"):
        run_syft(folder / "web.tar", MANIFEST, MANIFEST.images[0])


def test_a_package_that_is_written_in_several_ways_is_one_component() -> None:
    one, other = (Package(kind="pypi", name=name, version="1.0") for name in ("Foo_Bar", "foo-bar"))
    stated = Package(kind="pypi", name="foo-bar", version="1.0", license="MIT")
    found = ImagePackages(packages={"a": [one], "b": [other], "c": [stated]}, os_release=None)
    (component,) = build_sbom(MANIFEST, MANIFEST.images[0], found)["components"]
    assert component["bom-ref"] == component["purl"] == "pkg:pypi/foo-bar@1.0"
    assert component["licenses"] == [{"license": {"name": "MIT"}}]
    assert [each["location"] for each in component["evidence"]["occurrences"]] == ["/a", "/b", "/c"]
