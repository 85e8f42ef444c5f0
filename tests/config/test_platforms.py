"""Test platforms and variants of images."""

from __future__ import annotations

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.platforms import (
    expand_platform,
    host_platform,
    image_from_key,
    is_native_platform,
    list_variants,
    native_platform,
    platform_build_args,
)

BOTH = ["linux/amd64", "linux/arm/v7"]


def configuration(**platforms: list[str]) -> Configuration:
    images = {name: {"context": ".", "platforms": names} for name, names in platforms.items()}
    document = {"schema": 1, "project": {"name": "shop"}, "proxima": {"platforms": BOTH}, "images": images}
    return Configuration.model_validate(document)


def test_image_has_all_platforms_by_default() -> None:
    variants = list_variants(configuration(web=[], db=["linux/arm/v7"]))
    assert [(variant.key, variant.image, variant.platform) for variant in variants] == [
        ("web@linux/amd64", "web", "linux/amd64"),
        ("web@linux/arm/v7", "web", "linux/arm/v7"),
        ("db", "db", "linux/arm/v7"),
    ], "an image with one platform has its name as key"
    config = configuration(web=[], db=[])
    assert [variant.image for variant in list_variants(config, ["db"])] == ["db", "db"]
    assert {image_from_key(variant.key) for variant in list_variants(config)} == {"web", "db"}


def test_native_platform_ignores_variant() -> None:
    assert native_platform(BOTH, "linux/arm") == "linux/arm/v7"
    assert native_platform(BOTH, "linux/riscv64") == "linux/amd64", "else the first"
    assert not is_native_platform("linux/arm64", "linux/arm")
    assert host_platform().startswith("linux/")


def test_build_args_have_parts_of_both_platforms() -> None:
    arguments = platform_build_args("linux/amd64", "linux/arm/v7")
    assert (arguments["BUILDPLATFORM"], arguments["BUILDARCH"], arguments["BUILDVARIANT"]) == (
        "linux/amd64",
        "amd64",
        "",
    )
    assert (arguments["TARGETPLATFORM"], arguments["TARGETOS"], arguments["TARGETARCH"]) == (
        "linux/arm/v7",
        "linux",
        "arm",
    )
    assert arguments["TARGETVARIANT"] == "v7"
    assert expand_platform("bases/python-{platform}.tar", "linux/arm/v7") == "bases/python-linux-arm-v7.tar"


def test_third_party_image_has_the_name_of_its_service() -> None:
    services = {
        "front": {"image": "web"},
        "cache": {"image": "redis:7"},
        "queue": {"image": "redis:7", "platform": "linux/arm/v7", "promote": False},
    }
    config = configuration(web=["linux/amd64"]).model_copy(
        update={"services": {name: Service.model_validate(table) for name, table in services.items()}}
    )
    assert config.third_party_images == {"cache": "redis:7", "queue": "redis:7"}
    assert [config.image_name(name) for name in services] == ["web", "cache", "queue"]
    assert [variant.key for variant in list_variants(config)] == [
        "web",
        "cache@linux/amd64",
        "cache@linux/arm/v7",
        "queue",
    ]
    assert [variant.key for variant in list_variants(config, ["queue"])] == ["queue"]
