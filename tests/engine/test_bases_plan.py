"""Which bases a build needs and under which keys: decided from configuration and Dockerfiles alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.dockerfile.lock_file import LockedImage, base_key
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.engine.bases.archive import read_archived_image
from lyra_tasks.engine.bases.registry import content_digest, is_for_platform, pin_reference, registry_host
from lyra_tasks.engine.bases.resolve import (
    BASE_REPOSITORY,
    BaseInstall,
    ResolvedBase,
    collect_base_requests,
    group_bases_by_build,
    plan_base_installs,
)
from lyra_tasks.errors import ConfigurationError
from tests.images.saves import tar

CONFIG = Configuration.model_validate(
    {
        "schema": 1,
        "project": {"name": "demo"},
        "bases": {
            "python": {"image": "python:3.12-slim", "rootfs": {"suite": "bookworm", "packages": ["python3"]}},
            "own": {"archive": "bases/own.tar"},
            "busybox": {"archive": "bases/busybox.tar"},
        },
        "images": {"web": {"context": "web", "bases": {"vendor/base:1": "own"}}, "job": {"context": "job"}},
    }
)
DOCKERFILE = Path("web/Dockerfile")


def use(reference: str, line: int = 1, platform: str = "linux/amd64") -> ImageUse:
    return ImageUse(reference, DOCKERFILE, line, platform=platform)


def test_a_from_is_found_in_bases_by_the_image_by_name_or_by_its_reference() -> None:
    assert base_key(CONFIG, "web", "vendor/base:1") == "own"
    assert base_key(CONFIG, "job", "vendor/base:1") == "vendor/base:1"
    assert base_key(CONFIG, "job", "busybox") == "busybox"
    assert base_key(CONFIG, "job", "python:3.12-slim") == "python"
    assert base_key(CONFIG, "job", "python:3.13") == "python:3.13"


def test_a_base_is_needed_once_with_every_place_that_names_it() -> None:
    found = collect_base_requests(
        CONFIG, {"web": [use("alpine:3", 1), use("vendor/base:1", 4)], "job": [use("alpine:3", 9)]}
    )
    assert [need.key for need in found] == ["alpine:3", "own"]
    assert found[0].base.image == "alpine:3"
    assert found[0].locations == ("web/Dockerfile:1: alpine:3", "web/Dockerfile:9: alpine:3")
    assert found[1].base.archive == "bases/own.tar"


def test_one_reference_may_be_another_base_in_another_image() -> None:
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}")
    bases = {key: ResolvedBase(key, pin, f"docker-image://{key}") for key in ("own", "vendor/base:1")}
    uses = {"web": [use("vendor/base:1")], "job": [use("vendor/base:1")]}
    found = group_bases_by_build(CONFIG, uses, bases)
    assert found["web"]["vendor/base:1"].key == "own"
    assert found["job"]["vendor/base:1"].key == "vendor/base:1"


SEVERAL = Configuration.model_validate(
    {
        "schema": 1,
        "project": {"name": "demo"},
        "proxima": {"platforms": ["linux/amd64", "linux/arm64"]},
        "bases": {"own": {"archive": "bases/own-{platform}.tar", "image": "vendor/own:1-{platform}"}},
        "images": {"web": {"context": "web"}},
    }
)


def test_each_platform_needs_a_base_of_its_own_and_the_first_one_is_pinned_by_the_plain_name() -> None:
    arm = [use("own", 1, "linux/amd64"), use("own", 4, "linux/arm64")]
    uses = {"web@linux/amd64": [use("own", 1), use("own", 4)], "web@linux/arm64": arm}
    first, second = collect_base_requests(SEVERAL, uses)
    assert [(each.key, each.name, each.platform) for each in (first, second)] == [
        ("own", "own", "linux/amd64"),
        ("own@linux/arm64", "own", "linux/arm64"),
    ]
    assert first.locations == ("web/Dockerfile:1: own", "web/Dockerfile:4: own"), "each place once"
    assert (second.base.archive, second.base.image) == ("bases/own-linux-arm64.tar", "vendor/own:1-linux-arm64")
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}")
    bases = {each.key: ResolvedBase(each.key, pin, "", platform=each.platform) for each in (first, second)}
    found = group_bases_by_build(SEVERAL, uses, bases)
    assert {key: sorted(each) for key, each in found.items()} == {
        "web@linux/amd64": ["own"],
        "web@linux/arm64": ["own", "own@linux/amd64"],
    }


@pytest.mark.parametrize(
    ("image", "platform", "fits"),
    [
        ({"Os": "linux", "Architecture": "arm64", "Variant": "v8"}, "linux/arm64", True),
        ({"Os": "linux", "Architecture": "arm64"}, "linux/arm64/v8", True),
        ({"Os": "linux", "Architecture": "arm", "Variant": "v6"}, "linux/arm/v7", False),
        ({"Os": "linux", "Architecture": "amd64"}, "linux/arm64", False),
    ],
)
def test_an_image_is_for_a_platform_as_far_as_both_say(image: dict[str, Any], platform: str, fits: bool) -> None:
    assert is_for_platform(image, platform) is fits


def test_an_archive_for_another_platform_is_refused_and_told_how_each_has_its_own(tmp_path: Path) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}}).encode()
    entry = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": []}]).encode()
    (tmp_path / "base.tar").write_bytes(tar([("c.json", config), ("manifest.json", entry)]))
    assert read_archived_image(tmp_path / "base.tar", "linux/arm64").layer_members == ()
    with pytest.raises(ConfigurationError, match="is for linux/arm64, and linux/amd64 is built") as caught:
        read_archived_image(tmp_path / "base.tar", "linux/amd64")
    assert "{platform}" in caught.value.hint


def test_only_what_the_engine_lacks_is_planned_and_each_tag_once() -> None:
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}", local=True)
    tags = [f"{BASE_REPOSITORY}/{name}:1" for name in ("b", "a", "b")]
    bases = [
        ResolvedBase(tag, pin, f"docker-image://{tag}", install=BaseInstall(tag, image_id="sha256:1")) for tag in tags
    ]
    present = ResolvedBase("c", pin, "docker-image://c")
    assert [supply.tag for supply in plan_base_installs([*bases, present])] == sorted(set(tags))
    assert plan_base_installs([present]) == ()


def test_the_registry_of_a_reference_is_read_as_docker_does() -> None:
    assert registry_host("python:3.12") == registry_host("library/python") == "docker.io"
    assert registry_host("localhost/x") == "localhost"
    assert registry_host("ghcr.io/a/b:1") == "ghcr.io"
    assert registry_host("127.0.0.1:1/x") == "127.0.0.1:1"


def test_a_reference_is_pinned_once() -> None:
    assert pin_reference("python:3.12", "sha256:1") == "python:3.12@sha256:1"
    assert pin_reference("python@sha256:2", "sha256:2") == "python@sha256:2"


def test_the_digest_of_a_local_image_sees_layers_and_settings_and_no_empty_fields() -> None:
    image = {
        "Id": "sha256:1",
        "Os": "linux",
        "Architecture": "amd64",
        "RootFS": {"Layers": ["sha256:a"]},
        "Config": {"Env": ["A=1"], "Cmd": None, "Labels": {}},
    }
    same = image | {"Id": "sha256:2", "Variant": "", "Config": {"Env": ["A=1"], "Hostname": "x", "User": ""}}
    assert content_digest(image) == content_digest(same)
    assert content_digest(image) != content_digest(image | {"Config": {"Env": ["A=2"]}})
    assert content_digest(image) != content_digest(image | {"RootFS": {"Layers": ["sha256:b"]}})
    assert content_digest(image) != content_digest(image | {"Architecture": "arm64"})
