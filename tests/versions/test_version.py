"""Tests of computing versions from git facts, and of versions in tags, image tags, file names and PEP 440."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version as PythonVersion
from semver import Version

from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.versions.git import GitFacts, Tag, parse_tag
from lyra_tasks.versions.version import (
    CheckoutVersion,
    compute_version,
    version_from_image_tag,
    version_to_file_name,
    version_to_image_tag,
    version_to_pep440,
)

HEAD = "a1b2c3d" + "0" * 33
PAST = "f" * 40


def facts(*tags: str, at_head: tuple[str, ...] = (), distance: int = 0, dirty: bool = False) -> GitFacts:
    """Return facts with tags on an earlier commit and on HEAD."""
    return GitFacts(
        top=Path("/nowhere"),
        commit=HEAD,
        commit_time=0,
        branch="main",
        changed_paths=("file",) if dirty else (),
        dirty_hash="0badf00d" if dirty else "",
        is_shallow=False,
        tags=(*(Tag(name, PAST) for name in tags), *(Tag(name, HEAD) for name in at_head)),
        distance=distance,
        remote_url="",
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (facts(at_head=("v1.2.3",)), "1.2.3"),
        (facts(at_head=("v1.4.0-rc.1",)), "1.4.0-rc.1"),
        (facts("v1.2.3", distance=4), "1.2.4-dev.4+ga1b2c3d"),
        (facts("v1.4.0-rc.1", distance=2), "1.4.0-rc.1.dev.2+ga1b2c3d"),
        (facts(distance=7), "0.1.0-dev.7+ga1b2c3d"),
        (facts(at_head=("v1.2.3",), dirty=True), "1.2.4-dev.0+ga1b2c3d.dirty.0badf00d"),
        (facts("v1.2.3", distance=4, dirty=True), "1.2.4-dev.4+ga1b2c3d.dirty.0badf00d"),
        (facts("v1.4.0-rc.1", distance=2, dirty=True), "1.4.0-rc.1.dev.2+ga1b2c3d.dirty.0badf00d"),
        (facts(distance=7, dirty=True), "0.1.0-dev.7+ga1b2c3d.dirty.0badf00d"),
        (facts("v1.9.0", "v1.10.0", "v1.10.0-rc.2", distance=1), "1.10.1-dev.1+ga1b2c3d"),
        (facts(at_head=("v1.4.0-rc.2", "v1.4.0")), "1.4.0"),
        (facts("v2.0.0", at_head=("v1.2.3",)), "1.2.3"),
        (
            facts("v1.2.3", at_head=("nightly", "v1.2", "1.3.0", "v01.0.0", "xv1.0.0"), distance=3),
            "1.2.4-dev.3+ga1b2c3d",
        ),
        (facts(at_head=("v1.2.3+build.5",)), "1.2.3+build.5"),
        (facts("v1.2.3+build.5", distance=1), "1.2.4-dev.1+ga1b2c3d"),
    ],
)
def test_version_follows_from_tags_distance_and_tree(state: GitFacts, expected: str) -> None:
    assert compute_version(state).semver == expected


def test_version_has_a_reason() -> None:
    assert compute_version(facts(at_head=("v1.2.3",))) == CheckoutVersion(
        semver="1.2.3", reason="on tag v1.2.3", is_release=True, is_snapshot=False, image_tag="1.2.3"
    )
    assert compute_version(facts("v1.2.3", distance=1)) == CheckoutVersion(
        semver="1.2.4-dev.1+ga1b2c3d",
        reason="1 commit after tag v1.2.3",
        is_release=False,
        is_snapshot=False,
        image_tag="1.2.4-dev.1_ga1b2c3d",
    )
    assert compute_version(facts(distance=2, dirty=True)) == CheckoutVersion(
        semver="0.1.0-dev.2+ga1b2c3d.dirty.0badf00d",
        reason="2 commits, no version tag, uncommitted changes",
        is_release=False,
        is_snapshot=True,
        image_tag="0.1.0-dev.2_ga1b2c3d.dirty.0badf00d",
    )


def test_tag_prefix_separates_projects() -> None:
    state = facts("v3.0.0", "web/v1.2.3", "api/v2.0.0", distance=5)
    assert compute_version(state, "web/v{version}").semver == "1.2.4-dev.5+ga1b2c3d"
    assert compute_version(state, "{version}").semver == "0.1.0-dev.5+ga1b2c3d"


def test_version_too_long_for_an_image_tag_is_refused() -> None:
    longest = "1.0.0-" + "x" * 122
    assert compute_version(facts(at_head=(f"v{longest}",))).image_tag == longest
    with pytest.raises(PreconditionError, match="has 129 characters; image tags are limited to 128"):
        compute_version(facts(at_head=(f"v{longest}x",)))


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("v1.2.3", "v{version}", "1.2.3"),
        ("1.2.3", "{version}", "1.2.3"),
        ("web-1.2.3-final", "web-{version}-final", "1.2.3"),
        ("v", "v{version}", None),
        ("v1.2", "v{version}", None),
        ("v1.2.3-", "v{version}", None),
        ("v1.2.3-01", "v{version}", None),
        ("v１.2.3", "v{version}", None),  # noqa: RUF001
        ("vv1.2.3", "v{version}", None),
        ("aa", "a{version}a", None),
    ],
)
def test_tag_matches_the_pattern_or_is_ignored(name: str, pattern: str, expected: str | None) -> None:
    version = parse_tag(name, pattern)
    assert (None if version is None else str(version)) == expected


PARTS = st.integers(0, 99)


@given(PARTS, PARTS, PARTS, st.sampled_from(["", "-rc.1", "-alpha", "-rc.9"]), st.integers(1, 999), st.booleans())
def test_later_commits_sort_between_tag_and_next_release(
    major: int, minor: int, patch: int, pre: str, distance: int, dirty: bool
) -> None:
    tag = Version.parse(f"{major}.{minor}.{patch}{pre}")
    version = Version.parse(compute_version(facts(f"v{tag}", distance=distance, dirty=dirty)).semver)
    later = Version.parse(compute_version(facts(f"v{tag}", distance=distance + 1)).semver)
    upper = tag.finalize_version() if pre else tag.bump_patch()
    assert tag < version < later < upper


VALID = (
    "0.0.4", "1.2.3", "10.20.30", "1.1.2-prerelease+meta", "1.1.2+meta", "1.1.2+meta-valid", "1.0.0-alpha",
    "1.0.0-beta", "1.0.0-alpha.beta", "1.0.0-alpha.beta.1", "1.0.0-alpha.1", "1.0.0-alpha0.valid",
    "1.0.0-alpha.0valid", "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay", "1.0.0-rc.1+build.1",
    "2.0.0-rc.1+build.123", "1.2.3-beta", "10.2.3-DEV-SNAPSHOT", "1.2.3-SNAPSHOT-123", "1.0.0", "2.0.0", "1.1.7",
    "2.0.0+build.1848", "2.0.1-alpha.1227", "1.0.0-alpha+beta", "1.2.3----RC-SNAPSHOT.12.9.1--.12+788",
    "1.2.3----R-S.12.9.1--.12+meta", "1.2.3----RC-SNAPSHOT.12.9.1--.12", "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
    "99999999999999999999999.999999999999999999.99999999999999999", "1.0.0-0A.is.legal",
)  # fmt: skip
INVALID = (
    "1", "1.2", "1.2.3-0123", "1.2.3-0123.0123", "1.1.2+.123", "+invalid", "-invalid", "-invalid+invalid",
    "-invalid.01", "alpha", "alpha.beta", "alpha.beta.1", "alpha.1", "alpha+beta", "alpha_beta", "alpha.", "alpha..",
    "beta", "1.0.0-alpha_beta", "-alpha.", "1.0.0-alpha..", "1.0.0-alpha..1", "1.0.0-alpha...1", "1.0.0-alpha....1",
    "01.1.1", "1.01.1", "1.1.01", "1.2.3.DEV", "1.2-SNAPSHOT", "1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788",
    "1.2-RC-SNAPSHOT", "-1.0.3-gamma+b7718", "+justmeta", "9.8.7+meta+meta", "9.8.7-whatever+meta+meta",
    "99999999999999999999999.999999999999999999.99999999999999999----RC-SNAPSHOT.12.09.1---------..12",
)  # fmt: skip
IN_ORDER = (
    "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
    "1.0.0", "2.0.0", "2.1.0", "2.1.1",
)  # fmt: skip
IMAGE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

NUMBERS = st.integers(0, 30)
IDENTIFIERS = st.from_regex(r"[0-9A-Za-z-]{1,6}", fullmatch=True)
VERSIONS = st.builds(
    lambda core, pre, build: (
        ".".join(map(str, core)) + (f"-{'.'.join(pre)}" if pre else "") + (f"+{'.'.join(build)}" if build else "")
    ),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.lists(IDENTIFIERS, max_size=3),
    st.lists(IDENTIFIERS, max_size=3),
).filter(Version.is_valid)
OWN_VERSIONS = st.one_of(
    st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS),
    st.builds("{}.{}.{}-{}.{}".format, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["alpha", "beta", "rc"]), NUMBERS),
    st.builds("{}.{}.{}-rc.{}.dev.{}".format, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(1, 30)),
)


@pytest.mark.parametrize("text", VALID)
def test_tag_with_valid_version_is_parsed(text: str) -> None:
    assert str(parse_tag(f"v{text}")) == text


@pytest.mark.parametrize("text", INVALID)
def test_tag_without_valid_version_is_ignored(text: str) -> None:
    assert parse_tag(f"v{text}") is None


def test_precedence_follows_the_specification() -> None:
    versions = [Version.parse(text) for text in IN_ORDER]
    assert all(lower < higher for lower, higher in pairwise(versions))


@pytest.mark.parametrize("text", VALID)
def test_valid_examples_round_trip_as_image_tags(text: str) -> None:
    assert IMAGE_TAG.fullmatch(version_to_image_tag(text))
    assert version_from_image_tag(version_to_image_tag(text)) == text


@given(VERSIONS)
def test_any_version_round_trips_as_image_tag(text: str) -> None:
    assert IMAGE_TAG.fullmatch(version_to_image_tag(text))
    assert version_from_image_tag(version_to_image_tag(text)) == text


@pytest.mark.parametrize(
    "tag", ["latest", "1.4", "1", "", "1.4.0+b", "1.4.0_a_b", "v1.4.0", "1.4.0_", "1.0.0-" + "x" * 123]
)
def test_image_tag_of_no_version_is_refused(tag: str) -> None:
    with pytest.raises(UsageError, match="is not the image tag of a version"):
        version_from_image_tag(tag)


def test_image_tag_is_limited_to_128_characters() -> None:
    longest = "1.0.0-" + "x" * 122
    assert version_to_image_tag(longest) == longest
    with pytest.raises(PreconditionError, match="has 129 characters; image tags are limited to 128"):
        version_to_image_tag(f"{longest}x")


@given(VERSIONS, VERSIONS)
def test_file_names_differ_even_without_case(one: str, other: str) -> None:
    assert (version_to_file_name(one).lower() == version_to_file_name(other).lower()) == (one == other)
    assert re.fullmatch(r"[0-9a-z._-]+", version_to_file_name(one))


def test_file_name_encodes_case_and_build_metadata() -> None:
    names = [
        version_to_file_name(text)
        for text in ("1.0.0-RC.1", "1.0.0-rc.1", "1.0.0-r.c.1", "1.0.0+rc.1", "1.0.0-a", "1.0.0+A")
    ]
    assert names == ["1.0.0-_r_c.1", "1.0.0-rc.1", "1.0.0-r.c.1", "1.0.0__rc.1", "1.0.0-a", "1.0.0___a"]


def test_longest_image_tag_fits_into_a_file_name() -> None:
    assert len(version_to_file_name("1.0.0+" + "X" * 122)) <= 255


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.4.0", "1.4.0"),
        ("1.4.0-alpha.2", "1.4.0a2"),
        ("1.4.0-beta.0", "1.4.0b0"),
        ("1.4.0-rc.1", "1.4.0rc1"),
        ("1.4.1-dev.3+g1a2b3c4", "1.4.1.dev3+g1a2b3c4"),
        ("1.4.0-rc.1.dev.2+g1a2b3c4.dirty.0badf00d", "1.4.0rc2.dev2+g1a2b3c4.dirty.0badf00d"),
        ("1.4.0-feature-x.1", None),
        ("1.4.0-alpha", None),
        ("1.4.0+A-b", None),
    ],
)
def test_version_is_converted_to_pep440_or_none(text: str, expected: str | None) -> None:
    assert version_to_pep440(text) == expected
    if expected is not None:
        assert str(PythonVersion(expected)) == expected, "not in normal form"


@given(OWN_VERSIONS, OWN_VERSIONS)
def test_pep440_keeps_the_order_of_versions(one: str, other: str) -> None:
    left, right = version_to_pep440(one), version_to_pep440(other)
    assert left is not None
    assert right is not None
    assert (PythonVersion(left) < PythonVersion(right)) == (Version.parse(one) < Version.parse(other))
    assert (left == right) == (one == other)
