"""Where `promote --to` pushes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.bundle.format.index import read_manifest
from lyra_tasks.bundle.promote.push import Destination, parse_destination, push_bundle
from lyra_tasks.errors import BundleError, UsageError
from tests.bundle.test_verify import bundle as bundle  # a fixture
from tests.bundle.test_verify import made as made  # and what it copies


@pytest.mark.parametrize(
    ("text", "host", "folder"),
    [
        ("oci://registry.example", "registry.example", ""),
        ("oci://registry.example/", "registry.example", ""),
        ("oci://127.0.0.1:5000/team", "127.0.0.1:5000", "team"),
        ("oci://[::1]:5000/team/a-b/c_d", "[::1]:5000", "team/a-b/c_d"),
    ],
)
def test_a_place_is_a_host_and_a_folder(text: str, host: str, folder: str) -> None:
    assert parse_destination(text) == Destination(host, folder)


@pytest.mark.parametrize(
    "text",
    ["", "registry.example/team", "https://registry.example", "oci://", "oci:///team", "oci://h/Team", "oci://h//x",
     "oci://ada:secret@registry.example/team", "oci://h/team:tag", "oci://h/a/../b"],
)  # fmt: skip
def test_anything_else_is_a_usage_fault(text: str) -> None:
    with pytest.raises(UsageError, match="--to") as caught:
        parse_destination(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_bundle_that_was_damaged_since_is_not_pushed(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    archive = bundle / manifest.images[0].file
    whole = archive.read_bytes()
    # of the image's own manifest, which a registry would take as it is: it knows it by no digest
    other = whole.replace(b"vnd.oci.image.manifest.v1+json", b"vnd.oci.image.manifest.v2+json")
    assert other != whole
    for damaged in (whole[:700], other, None):
        archive.unlink()
        if damaged is not None:
            archive.write_bytes(damaged)
        with pytest.raises(BundleError, match="refused"):
            push_bundle(bundle, manifest, Destination("127.0.0.1:9", ""), ())
