"""Which version comes next, as tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from lyra_tasks.config.commits import read
from lyra_tasks.config.releases import Release
from lyra_tasks.errors import UsageError
from lyra_tasks.release.decide import Decision, decide
from lyra_tasks.release.wanted import Wanted, wanted


def decided(asked: Wanted, tagged: tuple[str, ...], *messages: str) -> Decision:
    """The decision where HEAD can reach these versions, and these commits came after the last release."""
    commits = [read(str(number) * 40, message) for number, message in enumerate(messages)]
    return decide(asked, [Release(f"v{each}", "", "", Version.parse(each)) for each in tagged], commits)


@pytest.mark.parametrize(
    ("tagged", "asked", "expected"),
    [
        ((), Wanted("auto"), "0.1.0"),
        ((), Wanted("patch"), "0.1.0"),
        ((), Wanted("minor"), "0.1.0"),
        ((), Wanted("major"), "1.0.0"),
        ((), Wanted("auto", pre="rc"), "0.1.0-rc.1"),
        (("1.3.4",), Wanted("patch"), "1.3.5"),
        (("1.3.4",), Wanted("minor"), "1.4.0"),
        (("1.3.4",), Wanted("major"), "2.0.0"),
        (("0.3.4",), Wanted("major"), "1.0.0"),
        (("1.3.4+b.1",), Wanted("patch"), "1.3.5"),
        (("1.9.0", "1.10.0"), Wanted("minor"), "1.11.0"),
        (("1.3.4",), Wanted("minor", pre="rc"), "1.4.0-rc.1"),
        (("1.3.4", "1.4.0-rc.1"), Wanted("minor", pre="rc"), "1.4.0-rc.2"),
        (("1.3.4", "1.4.0-rc.9", "1.4.0-rc.10"), Wanted("auto", pre="rc"), "1.4.0-rc.11"),
        (("1.3.4", "1.4.0-alpha.3"), Wanted("minor", pre="rc"), "1.4.0-rc.1"),
        (("1.3.4", "1.4.0-rc.2"), Wanted("minor"), "1.4.0"),
        (("1.3.4", "1.4.0-rc.2"), Wanted("auto"), "1.4.0"),
        (("1.3.4", "1.4.0-rc.2"), Wanted("major"), "2.0.0"),
        (("1.3.4", "1.4.0-rc.2"), Wanted("major", pre="rc"), "2.0.0-rc.1"),
        (("1.3.4", "2.0.0-rc.1"), Wanted("patch"), "2.0.0"),
        (("1.3.4",), Wanted(version="3.0.0-beta.7"), "3.0.0-beta.7"),
    ],
)
def test_the_next_version_follows_from_what_is_tagged_and_what_is_asked_for(
    tagged: tuple[str, ...], asked: Wanted, expected: str
) -> None:
    assert str(decided(asked, tagged, "fix: x").version) == expected


@pytest.mark.parametrize(
    ("tagged", "messages", "expected", "decisive"),
    [
        ("1.2.3", ["fix: a", "docs: b"], "1.2.4", []),
        ("1.2.3", ["Something", "else"], "1.2.4", []),
        ("1.2.3", ["fix: a", "feat: b", "feat(x): c"], "1.3.0", ["b", "c"]),
        ("1.2.3", ["feat: a", "fix!: b"], "2.0.0", ["b"]),
        ("1.2.3", ["feat: a", "fix: b\n\nBREAKING CHANGE: c"], "2.0.0", ["b"]),
        ("0.2.3", ["feat: a", "fix!: b"], "0.3.0", ["b"]),
        ("0.2.3", ["feat: a"], "0.3.0", ["a"]),
        ("0.2.3", ["fix: a"], "0.2.4", []),
    ],
)
def test_auto_reads_the_commits_and_says_which_decided(
    tagged: str, messages: list[str], expected: str, decisive: list[str]
) -> None:
    found = decided(Wanted("auto"), (tagged,), *messages)
    assert str(found.version) == expected
    assert [each.subject for each in found.decisive] == decisive


def test_a_decision_says_why() -> None:
    assert decided(Wanted("auto"), ("0.2.3",), "fix!: b").reason == "minor, something breaks before 1.0.0"
    assert decided(Wanted("patch"), ("1.0.0", "1.1.0-rc.2")).reason == "begun with 1.1.0-rc.2"
    assert decided(Wanted("major"), ("1.0.0", "1.1.0-rc.2")).reason == "major, as asked for"


CORES = st.tuples(*[st.integers(0, 5)] * 3)
TAGGED = st.lists(st.tuples(CORES, st.sampled_from(["", "-rc.1", "-rc.2", "-alpha.1"])), max_size=5)


@given(TAGGED, st.sampled_from(["major", "minor", "patch", "auto"]), st.sampled_from(["", "rc"]), st.booleans())
def test_the_next_version_is_above_all_that_head_can_reach(
    tagged: list[tuple[tuple[int, int, int], str]], bump: str, pre: str, breaks: bool
) -> None:
    texts = tuple(f"{'.'.join(map(str, core))}{suffix}" for core, suffix in tagged)
    found = decided(Wanted(bump, pre), texts, "feat!: x" if breaks else "fix: x")
    assert all(found.version > Version.parse(each) for each in texts)
    assert bool(found.version.prerelease) == bool(pre)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "1.0.0", "bump": "minor"}, "--version says it all"),
        ({"version": "1.0.0", "pre": "rc"}, "--version says it all"),
        ({"version": "v1.0.0"}, "'v1.0.0' is not a semantic version"),
        ({"version": "1.0"}, "'1.0' is not a semantic version"),
        ({"version": "1.0/.."}, "'1.0/..' is not a semantic version"),
        ({"version": "-1.0.0"}, "'-1.0.0' is not a semantic version"),
        ({"version": " 1.0.0"}, "' 1.0.0' is not a semantic version"),
        ({"bump": "huge"}, "--bump takes major, minor, patch, auto, not 'huge'"),
        ({"pre": "rc_1"}, "'rc_1' cannot be part of a version"),
        ({"pre": "01"}, "'01' cannot be part of a version"),
        ({"changelog": "../elsewhere.md"}, "--changelog ../elsewhere.md is not a file of the project"),
        ({"changelog": "/etc/changes.md"}, "is not a file of the project"),
        ({"changelog": "."}, "is not a file of the project"),
        ({"changelog": "out/changes.md"}, "is not a file of the project"),
        ({"changelog": "link.md"}, "--changelog link.md is a link"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(tmp_path: Path, options: dict[str, str], said: str) -> None:
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "link.md").symlink_to("changes.md")
    given_options = {"bump": "", "pre": "", "version": "", "changelog": ""} | options
    with pytest.raises(UsageError) as caught:
        wanted(
            tmp_path,
            bump=given_options["bump"],
            pre=given_options["pre"],
            version=given_options["version"],
            changelog=given_options["changelog"],
            push=False,
        )
    assert said in caught.value.message
