"""Tests of previous releases and floating tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from lyra_tasks.versions.version import Release, find_previous_release, list_floating_tags


def parse_versions(*texts: str) -> list[Version]:
    return [Version.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("version", "tagged", "expected"),
    [
        ("1.4.0", [], ("1.4", "1", "latest")),
        ("1.4.0", ["1.4.0", "1.3.9"], ("1.4", "1", "latest")),
        ("1.4.3", ["1.4.2", "1.4.3", "1.5.0"], ("1.4",)),
        ("1.5.1", ["1.5.0", "2.0.0"], ("1.5", "1")),
        ("1.4.2", ["1.4.3", "1.4.2"], ()),
        ("2.0.0", ["2.1.0-rc.1", "1.9.0"], ("2.0", "2", "latest")),
        ("1.10.0", ["1.9.0"], ("1.10", "1", "latest")),
        ("2.0.0-rc.1", ["1.9.0"], ()),
        ("0.2.0", ["0.1.0"], ("0.2", "0", "latest")),
        ("1.4.0+b1", ["1.4.0+b1"], ("1.4", "1", "latest")),
    ],
)
def test_release_moves_tags_of_lines_it_leads(version: str, tagged: list[str], expected: tuple[str, ...]) -> None:
    assert list_floating_tags(Version.parse(version), parse_versions(*tagged)) == expected


@given(st.sets(st.tuples(*[st.integers(0, 3)] * 3), min_size=1))
def test_floating_tag_belongs_to_the_highest_of_its_line(
    cores: set[tuple[int, int, int]],
) -> None:
    tagged = [Version(*core) for core in cores]
    owners: dict[str, list[Version]] = {}
    for version in tagged:
        for name in list_floating_tags(version, tagged):
            owners.setdefault(name, []).append(version)
    assert owners["latest"] == [max(tagged)]
    assert all(len(versions) == 1 for versions in owners.values())
    assert {name for name in owners if name.count(".") == 1} == {f"{major}.{minor}" for major, minor, _ in cores}


@pytest.mark.parametrize(
    ("version", "reachable", "expected"),
    [
        ("1.4.0", ["1.3.0", "1.4.0-rc.1", "1.4.0", "1.2.0"], "1.3.0"),
        ("1.4.0-rc.2", ["1.3.0", "1.4.0-rc.1"], "1.4.0-rc.1"),
        ("1.4.0-rc.1", ["1.3.0"], "1.3.0"),
        ("1.4.1-dev.3+g1a2b3c4", ["1.4.0", "1.3.0"], "1.4.0"),
        ("1.3.1", ["1.3.0", "2.0.0"], "1.3.0"),
        ("0.1.0", ["0.1.0-rc.1"], None),
    ],
)
def test_previous_release_is_the_highest_lower_version(
    version: str, reachable: list[str], expected: str | None
) -> None:
    releases = [Release(f"v{release}", "", "", release) for release in parse_versions(*reachable)]
    previous = find_previous_release(Version.parse(version), releases)
    assert (None if previous is None else str(previous.version)) == expected
