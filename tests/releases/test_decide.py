"""Tests of deciding the next version."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from lyra_tasks.errors import UsageError
from lyra_tasks.releases.next_version import Decision, ReleaseRequest, decide_version, parse_release_request
from lyra_tasks.versions.changelog import parse_commit
from lyra_tasks.versions.version import Release


def decide(options: ReleaseRequest, tagged: tuple[str, ...], *messages: str) -> Decision:
    """Decide from reachable versions and the messages of commits since the last release."""
    commits = [parse_commit(str(number) * 40, message) for number, message in enumerate(messages)]
    return decide_version(
        options, [Release(f"v{version}", "", "", Version.parse(version)) for version in tagged], commits
    )


@pytest.mark.parametrize(
    ("tagged", "options", "expected"),
    [
        ((), ReleaseRequest("auto"), "0.1.0"),
        ((), ReleaseRequest("patch"), "0.1.0"),
        ((), ReleaseRequest("minor"), "0.1.0"),
        ((), ReleaseRequest("major"), "1.0.0"),
        ((), ReleaseRequest("auto", pre="rc"), "0.1.0-rc.1"),
        (("1.3.4",), ReleaseRequest("patch"), "1.3.5"),
        (("1.3.4",), ReleaseRequest("minor"), "1.4.0"),
        (("1.3.4",), ReleaseRequest("major"), "2.0.0"),
        (("0.3.4",), ReleaseRequest("major"), "1.0.0"),
        (("1.3.4+b.1",), ReleaseRequest("patch"), "1.3.5"),
        (("1.9.0", "1.10.0"), ReleaseRequest("minor"), "1.11.0"),
        (("1.3.4",), ReleaseRequest("minor", pre="rc"), "1.4.0-rc.1"),
        (("1.3.4", "1.4.0-rc.1"), ReleaseRequest("minor", pre="rc"), "1.4.0-rc.2"),
        (("1.3.4", "1.4.0-rc.9", "1.4.0-rc.10"), ReleaseRequest("auto", pre="rc"), "1.4.0-rc.11"),
        (("1.3.4", "1.4.0-alpha.3"), ReleaseRequest("minor", pre="rc"), "1.4.0-rc.1"),
        (("1.3.4", "1.4.0-rc.2"), ReleaseRequest("minor"), "1.4.0"),
        (("1.3.4", "1.4.0-rc.2"), ReleaseRequest("auto"), "1.4.0"),
        (("1.3.4", "1.4.0-rc.2"), ReleaseRequest("major"), "2.0.0"),
        (("1.3.4", "1.4.0-rc.2"), ReleaseRequest("major", pre="rc"), "2.0.0-rc.1"),
        (("1.3.4", "2.0.0-rc.1"), ReleaseRequest("patch"), "2.0.0"),
        (("1.3.4",), ReleaseRequest(version="3.0.0-beta.7"), "3.0.0-beta.7"),
    ],
)
def test_next_version_follows_from_tags_and_options(
    tagged: tuple[str, ...], options: ReleaseRequest, expected: str
) -> None:
    assert str(decide(options, tagged, "fix: x").version) == expected


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
def test_auto_names_the_decisive_commits(tagged: str, messages: list[str], expected: str, decisive: list[str]) -> None:
    decision = decide(ReleaseRequest("auto"), (tagged,), *messages)
    assert str(decision.version) == expected
    assert [commit.subject for commit in decision.decisive_commits] == decisive


def test_decision_has_a_reason() -> None:
    assert decide(ReleaseRequest("auto"), ("0.2.3",), "fix!: b").reason == "minor, breaking changes before 1.0.0"
    assert decide(ReleaseRequest("patch"), ("1.0.0", "1.1.0-rc.2")).reason == "continues 1.1.0-rc.2"
    assert decide(ReleaseRequest("major"), ("1.0.0", "1.1.0-rc.2")).reason == "major, as requested"


CORES = st.tuples(*[st.integers(0, 5)] * 3)
TAGGED = st.lists(st.tuples(CORES, st.sampled_from(["", "-rc.1", "-rc.2", "-alpha.1"])), max_size=5)


@given(TAGGED, st.sampled_from(["major", "minor", "patch", "auto"]), st.sampled_from(["", "rc"]), st.booleans())
def test_next_version_is_above_all_reachable_ones(
    tagged: list[tuple[tuple[int, int, int], str]], bump: str, pre: str, breaks: bool
) -> None:
    texts = tuple(f"{'.'.join(map(str, core))}{suffix}" for core, suffix in tagged)
    decision = decide(ReleaseRequest(bump, pre), texts, "feat!: x" if breaks else "fix: x")
    assert all(decision.version > Version.parse(text) for text in texts)
    assert bool(decision.version.prerelease) == bool(pre)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "1.0.0", "bump": "minor"}, "--version cannot be combined"),
        ({"version": "1.0.0", "pre": "rc"}, "--version cannot be combined"),
        ({"version": "v1.0.0"}, "'v1.0.0' is not a semantic version"),
        ({"version": "1.0"}, "'1.0' is not a semantic version"),
        ({"version": "1.0/.."}, "'1.0/..' is not a semantic version"),
        ({"version": "-1.0.0"}, "'-1.0.0' is not a semantic version"),
        ({"version": " 1.0.0"}, "' 1.0.0' is not a semantic version"),
        ({"bump": "huge"}, "Unknown --bump 'huge'"),
        ({"pre": "rc_1"}, "Invalid pre-release 'rc_1'"),
        ({"pre": "01"}, "Invalid pre-release '01'"),
        ({"changelog": "../elsewhere.md"}, "--changelog ../elsewhere.md is not a file of the project"),
        ({"changelog": "/etc/changes.md"}, "is not a file of the project"),
        ({"changelog": "."}, "is not a file of the project"),
        ({"changelog": "out/changes.md"}, "is not a file of the project"),
        ({"changelog": "link.md"}, "--changelog link.md is a symbolic link"),
    ],
)
def test_invalid_options_are_usage_errors(tmp_path: Path, options: dict[str, str], message: str) -> None:
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "link.md").symlink_to("changes.md")
    given_options = {"bump": "", "pre": "", "version": "", "changelog": ""} | options
    with pytest.raises(UsageError) as raised:
        parse_release_request(
            tmp_path,
            bump=given_options["bump"],
            pre=given_options["pre"],
            version=given_options["version"],
            changelog=given_options["changelog"],
            push=False,
        )
    assert message in raised.value.message
