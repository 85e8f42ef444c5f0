"""How a version stands among the others: what came before it, and which image tags it moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from lyra_tasks.versions.version import Release, find_previous_release, list_floating_tags


def versions(*texts: str) -> list[Version]:
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
def test_a_release_moves_the_tags_of_the_lines_that_it_is_highest_in(
    version: str, tagged: list[str], expected: tuple[str, ...]
) -> None:
    assert list_floating_tags(Version.parse(version), versions(*tagged)) == expected


@given(st.sets(st.tuples(*[st.integers(0, 3)] * 3), min_size=1))
def test_each_moving_tag_belongs_to_one_release_which_is_the_highest_of_its_line(
    cores: set[tuple[int, int, int]],
) -> None:
    tagged = [Version(*core) for core in cores]
    owners: dict[str, list[Version]] = {}
    for version in tagged:
        for name in list_floating_tags(version, tagged):
            owners.setdefault(name, []).append(version)
    assert owners["latest"] == [max(tagged)]
    assert all(len(found) == 1 for found in owners.values())
    assert {name for name in owners if name.count(".") == 1} == {f"{one}.{two}" for one, two, _ in cores}


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
def test_a_changelog_begins_after_the_version_before(version: str, reachable: list[str], expected: str | None) -> None:
    found = find_previous_release(
        Version.parse(version), [Release(f"v{each}", "", "", each) for each in versions(*reachable)]
    )
    assert (None if found is None else str(found.version)) == expected
