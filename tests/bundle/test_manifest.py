"""The manifest and the index have one canonical form, which is read strictly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleEntry, BundleIndex, build_index, read_index
from lyra_tasks.bundle.format.manifest import (
    BundledArchive,
    Manifest,
    OtherFormatError,
    decode_document,
    encode_document,
    open_bundle,
    write_document,
)
from lyra_tasks.errors import BundleError

DIGEST = "sha256:" + "1" * 64
LAYER = {"media_type": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 3, "unpacked_size": 9}
DOCUMENT: dict[str, Any] = {
    "schema": "lyra.promotion/2",
    "project": "shop",
    "description": "ein Lädchen",
    "version": "1.2.0",
    "is_snapshot": False,
    "created": "2026-11-23T21:15:04+01:00",
    "source": {"url": "", "commit": "c" * 40, "dirty": False},
    "proxima": {"platforms": ["linux/amd64"], "min_engine": "20.10"},
    "run": "20261123t211504-3f9a1c",
    "set_digest": DIGEST,
    "archives": [
        {
            "platform": "linux/amd64",
            "file": "images/shop-1.2.0-linux-amd64.tar",
            "sha256": "2" * 64,
            "size": 10240,
        }
    ],
    "images": [
        {
            "name": "web",
            "services": ["web"],
            "references": ["shop/web:1.2.0"],
            "platform": "linux/amd64",
            "origin": None,
            "config_digest": DIGEST,
            "manifest_digest": DIGEST,
            "diff_ids": [DIGEST],
            "layers": [LAYER],
            "bases": {"python": DIGEST},
        }
    ],
    "services": [{"name": "web", "image": "web", "ports": {"http": 8000}}],
    "test_doubles": [],
    "tests": {"passed": 4, "failed": 0},
    "deviations": 0,
}


def document(**changes: Any) -> Manifest:
    return Manifest.model_validate(DOCUMENT | changes)


def entry(version: str, created: str = "2026-11-23T00:00:00Z") -> BundleEntry:
    return BundleEntry(version=version, created=created, commit="c" * 40, set_digest=DIGEST, is_snapshot="+" in version)


def test_manifest_is_written_sorted_and_read_back(tmp_path: Path) -> None:
    write_document(tmp_path / "manifest.json", document())
    data = (tmp_path / "manifest.json").read_bytes()
    assert data == (json.dumps(DOCUMENT, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    assert open_bundle(tmp_path).manifest == document()
    assert document().images[0].identity.diff_ids == (DIGEST,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "lyra.promotion/x"),
        ("schema", 2),
        ("project", "../x"),
        ("version", "1.0/.."),
        ("version", "v1.0.0"),
        ("created", "yesterday"),
        ("set_digest", "sha256:1"),
        ("source", {"url": "", "commit": "HEAD", "dirty": False}),
        ("tests", {"passed": "4", "failed": 0}),
        ("tests", {"passed": 4, "failed": -1}),
        ("archives", [DOCUMENT["archives"][0] | {"file": "images/../../x.tar"}]),
        ("archives", [DOCUMENT["archives"][0] | {"file": "/x.tar"}]),
        ("archives", []),
        ("archives", [DOCUMENT["archives"][0], DOCUMENT["archives"][0] | {"file": "images/other.tar"}]),
        ("archives", [DOCUMENT["archives"][0], DOCUMENT["archives"][0] | {"platform": "linux/arm64"}]),
        ("images", []),
        ("images", [DOCUMENT["images"][0] | {"references": []}]),
        ("images", [DOCUMENT["images"][0] | {"references": ["shop/web:1 evil/web:1"]}]),
        ("images", [DOCUMENT["images"][0] | {"references": ["shop/web:1\nlinux/amd64 x.tar 1"]}]),
        ("images", [DOCUMENT["images"][0] | {"references": ["--volume=/:/host"]}]),
        ("images", [DOCUMENT["images"][0] | {"origin": {"reference": "web:1"}}]),
        ("test_doubles", [{"service": "db"}]),
        ("images", [DOCUMENT["images"][0] | {"diff_ids": []}]),
        ("images", [DOCUMENT["images"][0], DOCUMENT["images"][0] | {"name": "other"}]),
        ("images", [DOCUMENT["images"][0], DOCUMENT["images"][0] | {"references": ["shop/other:1"]}]),
        ("surprise", 1),
    ],
)
def test_decode_refuses_invalid_manifest(key: str, value: Any) -> None:
    data = json.dumps(DOCUMENT | {key: value}, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    with pytest.raises(BundleError, match=f"here: {key}|here: document"):
        decode_document(data, Manifest, "here")


def test_build_name_has_platform_if_there_are_several() -> None:
    (image,) = document().images
    arm = image.model_copy(update={"platform": "linux/arm64"})
    assert list(document().images_by_build) == [image.name]
    both = document().model_copy(update={"images": [image, arm]})
    assert both.images_by_build == {f"{image.name}@linux/amd64": image, f"{image.name}@linux/arm64": arm}


@pytest.mark.parametrize(("number", "age"), [(1, "an earlier"), (3, "a newer"), (10, "a newer")])
def test_decode_names_format_of_another_version(number: int, age: str) -> None:
    data = json.dumps({"schema": f"lyra.promotion/{number}", "anything": 1}).encode()
    with pytest.raises(
        OtherFormatError, match=rf"here: written by {age} version of lyra-tasks \(lyra.promotion/"
    ) as error:
        decode_document(data, Manifest, "here")
    assert error.value.exit_code == 6


def test_decode_refuses_non_canonical_form() -> None:
    data = encode_document(document())
    for other in (data[:-1], data + b"\n", json.dumps(DOCUMENT).encode(), data.replace(b"{", b'{"run": "twice",', 1)):
        with pytest.raises(BundleError, match="here"):
            decode_document(other, Manifest, "here")


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1-dev.3+gabcdef0", "1.2.0-rc.1+gabc.dirty.0123abcd"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm/v7"])
def test_archive_name_matches_the_manifest_pattern(version: str, platform: str) -> None:
    name = layout.archive_file("shop", version, platform)
    assert name == f"images/shop-{version}-{platform.replace('/', '-')}.tar"
    pattern = next(item.pattern for item in BundledArchive.model_fields["file"].metadata if hasattr(item, "pattern"))
    assert re.fullmatch(pattern, name)


def test_encode_refuses_invalid_manifest() -> None:
    with pytest.raises(BundleError, match="Cannot write an invalid Manifest"):
        encode_document(document().model_copy(update={"version": "latest"}))


@given(st.binary(max_size=200))
def test_decode_refuses_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        decode_document(data, Manifest, "here")


def test_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a promotion bundle"):
        open_bundle(tmp_path)
    assert read_index(tmp_path, "shop").versions == []


def test_index_sorts_by_precedence_then_time(tmp_path: Path) -> None:
    versions = ("1.10.0-rc.1", "1.10.0", "1.2.1-dev.3+gaaa", "1.10.0-rc.1.dev.2+gbbb")
    entries = [entry("1.2.0", created="2026-11-25T00:00:00Z"), *(entry(version) for version in versions)]
    entries.append(entry("1.2.1-dev.3+gccc.dirty.01", created="2026-11-24T00:00:00Z"))
    write_document(tmp_path / "index.json", build_index("shop", entries))
    assert [entry.version for entry in read_index(tmp_path, "shop").versions] == [
        "1.10.0",
        "1.10.0-rc.1.dev.2+gbbb",
        "1.10.0-rc.1",
        "1.2.1-dev.3+gccc.dirty.01",
        "1.2.1-dev.3+gaaa",
        "1.2.0",
    ]


def test_index_refuses_unsorted_or_duplicate_versions() -> None:
    for versions in (["1.0.0", "2.0.0"], ["1.0.0", "1.0.0"]):
        with pytest.raises(ValidationError):
            BundleIndex(project="shop", versions=[entry(version) for version in versions])
