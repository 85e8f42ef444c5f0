"""Images for several platforms: which there are, and what they are called."""

from __future__ import annotations

from lyra_tasks.config.models import Configuration
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
    images = {name: {"context": ".", "platforms": found} for name, found in platforms.items()}
    document = {"schema": 1, "project": {"name": "shop"}, "proxima": {"platforms": BOTH}, "images": images}
    return Configuration.model_validate(document)


def test_an_image_is_for_all_platforms_of_proxima_unless_it_says_which() -> None:
    found = [
        (each.key, each.image, each.platform) for each in list_variants(configuration(web=[], db=["linux/arm/v7"]))
    ]
    assert found == [
        ("web@linux/amd64", "web", "linux/amd64"),
        ("web@linux/arm/v7", "web", "linux/arm/v7"),
        ("db", "db", "linux/arm/v7"),
    ], "one for a platform alone is called by its name alone"
    assert [each.image for each in list_variants(configuration(web=[], db=[]), ["db"])] == ["db", "db"]
    assert {image_from_key(each.key) for each in list_variants(configuration(web=[], db=[]))} == {"web", "db"}


def test_the_engines_own_platform_is_found_whatever_its_variant() -> None:
    assert native_platform(BOTH, "linux/arm") == "linux/arm/v7"
    assert native_platform(BOTH, "linux/riscv64") == "linux/amd64", "else the first"
    assert not is_native_platform("linux/arm64", "linux/arm")
    assert host_platform().startswith("linux/")


def test_buildkits_arguments_have_the_parts_of_both_platforms() -> None:
    found = platform_build_args("linux/amd64", "linux/arm/v7")
    assert (found["BUILDPLATFORM"], found["BUILDARCH"], found["BUILDVARIANT"]) == ("linux/amd64", "amd64", "")
    assert (found["TARGETPLATFORM"], found["TARGETOS"], found["TARGETARCH"]) == ("linux/arm/v7", "linux", "arm")
    assert found["TARGETVARIANT"] == "v7"
    assert expand_platform("bases/python-{platform}.tar", "linux/arm/v7") == "bases/python-linux-arm-v7.tar"
