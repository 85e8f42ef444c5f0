"""Images for several platforms: which there are, and what they are called."""

from __future__ import annotations

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import (
    for_platform,
    image_of,
    own_platform,
    platform_arguments,
    runs_on,
    this_machine,
    variants,
)

BOTH = ["linux/amd64", "linux/arm/v7"]


def configuration(**platforms: list[str]) -> Configuration:
    images = {name: {"context": ".", "platforms": found} for name, found in platforms.items()}
    document = {"schema": 1, "project": {"name": "shop"}, "proxima": {"platforms": BOTH}, "images": images}
    return Configuration.model_validate(document)


def test_an_image_is_for_all_platforms_of_proxima_unless_it_says_which() -> None:
    found = [(each.key, each.image, each.platform) for each in variants(configuration(web=[], db=["linux/arm/v7"]))]
    assert found == [
        ("web@linux/amd64", "web", "linux/amd64"),
        ("web@linux/arm/v7", "web", "linux/arm/v7"),
        ("db", "db", "linux/arm/v7"),
    ], "one for a platform alone is called by its name alone"
    assert [each.image for each in variants(configuration(web=[], db=[]), ["db"])] == ["db", "db"]
    assert {image_of(each.key) for each in variants(configuration(web=[], db=[]))} == {"web", "db"}


def test_the_engines_own_platform_is_found_whatever_its_variant() -> None:
    assert own_platform(BOTH, "linux/arm") == "linux/arm/v7"
    assert own_platform(BOTH, "linux/riscv64") == "linux/amd64", "else the first"
    assert not runs_on("linux/arm64", "linux/arm")
    assert this_machine().startswith("linux/")


def test_buildkits_arguments_have_the_parts_of_both_platforms() -> None:
    found = platform_arguments("linux/amd64", "linux/arm/v7")
    assert (found["BUILDPLATFORM"], found["BUILDARCH"], found["BUILDVARIANT"]) == ("linux/amd64", "amd64", "")
    assert (found["TARGETPLATFORM"], found["TARGETOS"], found["TARGETARCH"]) == ("linux/arm/v7", "linux", "arm")
    assert found["TARGETVARIANT"] == "v7"
    assert for_platform("bases/python-{platform}.tar", "linux/arm/v7") == "bases/python-linux-arm-v7.tar"
