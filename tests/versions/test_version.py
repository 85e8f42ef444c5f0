"""Tests of computing versions from git facts."""

from __future__ import annotations

from pathlib import Path

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from lyra_tasks.errors import PreconditionError
from lyra_tasks.versions.formats import Tag, parse_tag
from lyra_tasks.versions.git import GitFacts
from lyra_tasks.versions.version import CheckoutVersion, compute_version

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
    tag = semver.Version.parse(f"{major}.{minor}.{patch}{pre}")
    version = semver.Version.parse(compute_version(facts(f"v{tag}", distance=distance, dirty=dirty)).semver)
    later = semver.Version.parse(compute_version(facts(f"v{tag}", distance=distance + 1)).semver)
    upper = tag.finalize_version() if pre else tag.bump_patch()
    assert tag < version < later < upper
