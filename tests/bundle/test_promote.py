"""The source that `promote` names, and `promote --to`: destinations and damaged bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.bundle.format.manifest import open_bundle
from lyra_tasks.bundle.promote.contents import _source
from lyra_tasks.bundle.promote.push import Destination, parse_destination, push_bundle
from lyra_tasks.errors import BundleError, UsageError
from tests.bundle.test_verify import bundle as bundle  # a fixture
from tests.bundle.test_verify import made as made  # and what it copies


@pytest.mark.parametrize(
    ("remote", "uri"),
    [
        ("https://code.example.org/ada/shop.git", "git+https://code.example.org/ada/shop.git"),
        ("ssh://git@code.example.org:2222/ada/shop", "git+ssh://git@code.example.org:2222/ada/shop"),
        ("git@code.example.org:ada/shop.git", "git+ssh://git@code.example.org/ada/shop.git"),
        ("code.example.org:/srv/shop.git", "git+ssh://code.example.org/srv/shop.git"),
        ("code.example.org/ada/shop", None),
        ("/srv/git/shop:old", None),
        ("shop", None),
        ("", None),
    ],
)
def test_provenance_names_reachable_source_only(remote: str, uri: str | None) -> None:
    assert _source(remote).get("uri") == uri


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("oci://registry.example", "registry.example", ""),
        ("oci://registry.example/", "registry.example", ""),
        ("oci://127.0.0.1:5000/team", "127.0.0.1:5000", "team"),
        ("oci://[::1]:5000/team/a-b/c_d", "[::1]:5000", "team/a-b/c_d"),
    ],
)
def test_destination_is_host_and_path(text: str, host: str, path: str) -> None:
    assert parse_destination(text) == Destination(host, path)


@pytest.mark.parametrize(
    "text",
    ["", "registry.example/team", "https://registry.example", "oci://", "oci:///team", "oci://h/Team", "oci://h//x",
     "oci://ada:secret@registry.example/team", "oci://h/team:tag", "oci://h/a/../b"],
)  # fmt: skip
def test_invalid_destination_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--to") as caught:
        parse_destination(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_push_refuses_damaged_bundle(bundle: Path) -> None:
    opened = open_bundle(bundle)
    archive = bundle / opened.manifest.archives[0].file
    content = archive.read_bytes()
    # A registry would accept this change of the image manifest, since nothing refers to it by digest.
    other = content.replace(b"vnd.oci.image.manifest.v1+json", b"vnd.oci.image.manifest.v2+json")
    assert other != content
    for damaged in (content[:700], other, None):
        archive.unlink()
        if damaged is not None:
            archive.write_bytes(damaged)
        with pytest.raises(BundleError, match="refused"):
            push_bundle(opened, Destination("127.0.0.1:9", ""), ())
