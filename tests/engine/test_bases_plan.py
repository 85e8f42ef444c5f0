"""Base requests and keys, from configuration and Dockerfiles alone."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.models import Base, Configuration, Service
from lyra_tasks.config.platforms import list_variants
from lyra_tasks.dockerfile.lock_file import LockedImage, base_key, find_base
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.engine.bases.archive import read_archived_image
from lyra_tasks.engine.bases.inputs import (
    collect_base_requests,
    create_third_party_request,
    find_unused_bases,
    merge_requests,
)
from lyra_tasks.engine.bases.materials import group_bases_by_build
from lyra_tasks.engine.bases.registry import content_digest, is_for_platform
from lyra_tasks.engine.bases.resolve import BASE_REPOSITORY, BaseInstall, ResolvedBase, plan_base_installs
from lyra_tasks.engine.bases.sources import MissingImages, UnavailableImagesError, suggest_sources
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.references import pin_reference, registry_host
from tests.images.saves import tar

THIRD_PARTY = {"web": "nginx:1.27", "cache": "redis:7", "app": "app:1"}
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


def test_base_key_is_found_by_image_name_or_reference() -> None:
    assert base_key(CONFIG, "web", "vendor/base:1") == "own"
    assert base_key(CONFIG, "job", "vendor/base:1") == "vendor/base:1"
    assert base_key(CONFIG, "job", "busybox") == "busybox"
    assert base_key(CONFIG, "job", "python:3.12-slim") == "python"
    assert base_key(CONFIG, "job", "python:3.13") == "python:3.13"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("python:3.12-slim", "python"),
        ("docker.io/library/python:3.12-slim", "python"),
        ("python:3.13", "python:3.13"),
        ("redis", "redis:latest"),
        ("docker.io/redis:latest", "redis:latest"),
        ("redis:7", "redis:7"),
        ("busybox:1.36", "busybox"),
        ("quay.io/tools/busybox:1", "busybox"),
        ("ghcr.io/owner/app:1", "ghcr.io/owner/app"),
        ("other/busyboxes:1", "other/busyboxes:1"),
    ],
)
def test_base_is_named_by_reference_or_repository(reference: str, name: str) -> None:
    names: dict[str, dict[str, Any]] = {"redis:latest": {"rootfs": {"suite": "trixie", "packages": ["redis-server"]}}}
    names |= {"ghcr.io/owner/app": {"archive": "app.tar"}}
    bases = CONFIG.model_dump()["bases"] | names
    assert (
        find_base(Configuration.model_validate({**CONFIG.model_dump(by_alias=True), "bases": bases}), reference) == name
    )


def test_third_party_image_shares_the_pin_of_a_from() -> None:
    services = {"cache": {"image": "redis:7"}, "queue": {"image": "redis:7", "platform": "linux/arm64"}}
    config = CONFIG.model_copy(
        update={"services": {name: Service.model_validate(table) for name, table in services.items()}}
    )
    variants = list_variants(config, services)
    requests = merge_requests(
        [
            *collect_base_requests(config, {"web": [use("redis:7")]}),
            *(create_third_party_request(config, variant) for variant in variants),
        ]
    )
    assert [(request.key, request.platform) for request in requests] == [
        ("redis:7", "linux/amd64"),
        ("redis:7@linux/arm64", "linux/arm64"),
    ]
    assert requests[0].locations == ("web/Dockerfile:1: redis:7", "services.cache.image: redis:7")
    assert set(requests[0].references) == {"redis:7"}
    assert find_unused_bases(config, requests) == ("python", "own", "busybox")


@pytest.mark.parametrize(
    ("base", "lines"),
    [
        (None, ('[bases."redis:7"]', 'archive = "redis-7.tar"', 'packages = ["redis-server"]')),
        ({"rootfs": {"suite": "trixie", "packages": ["redis"]}}, ('add a source to [bases."redis:7"]', "archive = ")),
    ],
)
def test_hint_has_lines_of_toml(base: dict[str, Any] | None, lines: tuple[str, ...]) -> None:
    bases = {"redis:7": Base.model_validate(base)} if base else {}
    config = CONFIG.model_copy(
        update={"bases": bases, "services": {"cache": Service.model_validate({"image": "redis:7"})}}
    )
    hint = suggest_sources(create_third_party_request(config, list_variants(config, ["cache"])[0]))
    for line in lines:
        assert line in hint
    table = hint.partition("\n")[2]
    assert tomllib.loads(table)


def test_all_images_that_are_missing_are_in_one_error() -> None:
    services = {name: Service.model_validate({"image": image}) for name, image in THIRD_PARTY.items()}
    config = CONFIG.model_copy(update={"bases": {}, "services": services})
    requests = [create_third_party_request(config, variant) for variant in list_variants(config, THIRD_PARTY)]
    missing = MissingImages()
    missing.require_none()
    for group in (requests[:2], requests[2:]):
        inner = MissingImages()
        for request in group:
            with inner.collect():
                raise UnavailableImagesError((request,), f"no {request.key}", hint="x", details=request.locations)
        with missing.collect():
            inner.require_none()
    with pytest.raises(
        UnavailableImagesError, match=r"3 images are not available: nginx:1.27, redis:7, app:1"
    ) as error:
        missing.require_none()
    assert error.value.details[:2] == ("no nginx:1.27", "services.web.image: nginx:1.27")
    assert set(tomllib.loads(error.value.hint.partition("\n")[2])["bases"]) == set(THIRD_PARTY.values())


def test_base_request_lists_all_locations() -> None:
    requests = collect_base_requests(
        CONFIG, {"web": [use("alpine:3", 1), use("vendor/base:1", 4)], "job": [use("alpine:3", 9)]}
    )
    assert [request.key for request in requests] == ["alpine:3", "own"]
    assert requests[0].base.image == "alpine:3"
    assert requests[0].locations == ("web/Dockerfile:1: alpine:3", "web/Dockerfile:9: alpine:3")
    assert requests[1].base.archive == "bases/own.tar"


def test_reference_can_be_another_base_per_image() -> None:
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}")
    bases = {key: ResolvedBase(key, pin, f"docker-image://{key}") for key in ("own", "vendor/base:1")}
    uses = {"web": [use("vendor/base:1")], "job": [use("vendor/base:1")]}
    bases_by_build = group_bases_by_build(CONFIG, uses, bases)
    assert bases_by_build["web"]["vendor/base:1"].key == "own"
    assert bases_by_build["job"]["vendor/base:1"].key == "vendor/base:1"


SEVERAL = Configuration.model_validate(
    {
        "schema": 1,
        "project": {"name": "demo"},
        "proxima": {"platforms": ["linux/amd64", "linux/arm64"]},
        "bases": {"own": {"archive": "bases/own-{platform}.tar", "image": "vendor/own:1-{platform}"}},
        "images": {"web": {"context": "web"}},
    }
)


def test_platforms_have_separate_base_requests() -> None:
    arm = [use("own", 1, "linux/amd64"), use("own", 4, "linux/arm64")]
    uses = {"web@linux/amd64": [use("own", 1), use("own", 4)], "web@linux/arm64": arm}
    first, second = collect_base_requests(SEVERAL, uses)
    assert [(request.key, request.name, request.platform) for request in (first, second)] == [
        ("own", "own", "linux/amd64"),
        ("own@linux/arm64", "own", "linux/arm64"),
    ]
    assert first.locations == ("web/Dockerfile:1: own", "web/Dockerfile:4: own"), "each place once"
    assert (second.base.archive, second.base.image) == ("bases/own-linux-arm64.tar", "vendor/own:1-linux-arm64")
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}")
    bases = {request.key: ResolvedBase(request.key, pin, "", platform=request.platform) for request in (first, second)}
    bases_by_build = group_bases_by_build(SEVERAL, uses, bases)
    assert {build: sorted(names) for build, names in bases_by_build.items()} == {
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
def test_missing_variant_matches_any_platform(image: dict[str, Any], platform: str, fits: bool) -> None:
    assert is_for_platform(image, platform) is fits


def test_archive_for_other_platform_is_refused(tmp_path: Path) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}}).encode()
    entry = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": []}]).encode()
    (tmp_path / "base.tar").write_bytes(tar([("c.json", config), ("manifest.json", entry)]))
    assert read_archived_image(tmp_path / "base.tar", "linux/arm64").layer_members == ()
    with pytest.raises(ConfigurationError, match="is for linux/arm64, not for linux/amd64") as caught:
        read_archived_image(tmp_path / "base.tar", "linux/amd64")
    assert "{platform}" in caught.value.hint


def test_installs_are_planned_once_per_tag() -> None:
    pin = LockedImage(reference="x", digest=f"sha256:{'a' * 64}", local=True)
    tags = [f"{BASE_REPOSITORY}/{name}:1" for name in ("b", "a", "b")]
    bases = [
        ResolvedBase(tag, pin, f"docker-image://{tag}", install=BaseInstall(tag, image_id="sha256:1")) for tag in tags
    ]
    installed = ResolvedBase("c", pin, "docker-image://c")
    assert [install.tag for install in plan_base_installs([*bases, installed])] == sorted(set(tags))
    assert plan_base_installs([installed]) == ()


def test_registry_host_is_parsed_like_docker() -> None:
    assert registry_host("python:3.12") == registry_host("library/python") == "docker.io"
    assert registry_host("localhost/x") == "localhost"
    assert registry_host("ghcr.io/a/b:1") == "ghcr.io"
    assert registry_host("127.0.0.1:1/x") == "127.0.0.1:1"


def test_reference_is_pinned_once() -> None:
    assert pin_reference("python:3.12", "sha256:1") == "python:3.12@sha256:1"
    assert pin_reference("python@sha256:2", "sha256:2") == "python@sha256:2"


def test_content_digest_covers_layers_and_settings() -> None:
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


def test_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.tar"
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [f"sha256:{'0' * 64}"]}})
    entry = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}])
    content = tar([("c.json", config.encode()), ("manifest.json", entry.encode()), ("layer.tar", b"x" * 2000)])
    path.write_bytes(content)
    assert read_archived_image(path, "linux/amd64").layer_members == ("layer.tar",)
    with tarfile.open(path) as archive:
        end = max(member.offset_data + member.size for member in archive)
    for size in (*range(0, end, 100), end - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ConfigurationError, match=r"base\.tar is not an image archive") as caught:
            read_archived_image(path, "linux/amd64")
        assert caught.value.hint
