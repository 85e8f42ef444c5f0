"""Tests of parsing commit messages and rendering changelogs."""

from __future__ import annotations

import pytest

from lyra_tasks.versions.changelog import (
    Commit,
    VersionChanges,
    add_changelog_section,
    commit_url_prefix,
    parse_commit,
    render_changelog_page,
    render_changes,
)

ID = "a1b2c3d" + "0" * 33
COMMITS = tuple(
    parse_commit(str(number) * 40, message)
    for number, message in enumerate(
        (
            "Tidy up",
            "docs: say more",
            "perf(db): faster",
            "fix(web): close the door",
            "feat!: new doors",
            "feat: windows",
        ),
        start=1,
    )
)
CHANGES = VersionChanges("1.4.0", "2026-11-23", "1.3.0", COMMITS)
FIRST = VersionChanges("0.1.0", "2026-11-22", "", ())


@pytest.mark.parametrize(
    ("message", "commit_type", "scope", "subject", "breaking"),
    [
        ("feat: greet by name", "feat", "", "greet by name", ""),
        ("feat(web): greet\n\nMore of it.\n", "feat", "web", "greet", ""),
        ("FIX(Web UI): it", "fix", "Web UI", "it", ""),
        ("feat!: drop the old API", "feat", "", "drop the old API", "drop the old API"),
        ("chore(api)!: drop it", "chore", "api", "drop it", "drop it"),
        ("fix: x\n\nbody\n\nBREAKING CHANGE: the port is another\n", "fix", "", "x", "the port is another"),
        ("fix!: x\n\nBREAKING-CHANGE: y", "fix", "", "x", "y"),
        ("fix: x\n\nbreaking change: only upper case counts", "fix", "", "x", ""),
        ("fix: x\n\nNo BREAKING CHANGE: here", "fix", "", "x", ""),
        ("Change the port\n\nBREAKING CHANGE: it is 81", "", "", "Change the port", "it is 81"),
        ("feat add", "", "", "feat add", ""),
        ("feat:add", "", "", "feat:add", ""),
        ("feat(): add", "", "", "feat(): add", ""),
        ("feat :x", "", "", "feat :x", ""),
        ("Merge: two things", "merge", "", "two things", ""),
        ("\n\nfix: leading lines\n", "fix", "", "leading lines", ""),
        ("", "", "", "", ""),
    ],
)
def test_message_is_parsed_by_convention_or_kept(
    message: str, commit_type: str, scope: str, subject: str, breaking: str
) -> None:
    assert parse_commit(ID, message) == Commit(ID, commit_type, scope, subject, breaking)


def test_commit_summary_has_short_id_and_scope() -> None:
    assert parse_commit(ID, "feat(web): greet").short_id == "a1b2c3d"
    assert parse_commit(ID, "feat(web): greet").summary == "web: greet"
    assert parse_commit(ID, "greet").summary == "greet"


def test_changes_are_grouped_by_type_with_breaking_ones_first() -> None:
    assert render_changes(CHANGES) == (
        "### Breaking changes\n\n- new doors (5555555)\n\n"
        "### Features\n\n- new doors (5555555)\n- windows (6666666)\n\n"
        "### Fixes\n\n- **web:** close the door (4444444)\n\n"
        "### Performance\n\n- **db:** faster (3333333)\n\n"
        "### Other changes\n\n- Tidy up (1111111)\n- say more (2222222)\n"
    )


def test_section_and_page_name_the_version() -> None:
    assert add_changelog_section("", CHANGES).startswith("# Changelog\n\n## 1.4.0 (2026-11-23)\n\n### Breaking")
    assert render_changelog_page(CHANGES, "shop").startswith(
        "# shop 1.4.0: changes since 1.3.0\n\n2026-11-23\n\n### Breaking"
    )
    assert render_changelog_page(FIRST, "shop") == "# shop 0.1.0: changes\n\n2026-11-22\n\nNo changes.\n"


def test_commits_are_linked_on_known_forges() -> None:
    linked = VersionChanges("1.4.0", "2026-11-23", "1.3.0", COMMITS[:1], "https://gitlab.example.org/a/shop.git")
    assert render_changes(linked) == (
        f"### Other changes\n\n- Tidy up ([1111111](https://gitlab.example.org/a/shop/-/commit/{'1' * 40}))\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://github.example.org/a/b", "https://github.example.org/a/b/commit/"),
        ("https://git.example.org/a/b.git", ""),
        ("https://gitea.example.org:3000/a/b.git/", "https://gitea.example.org:3000/a/b/commit/"),
        ("git@gitlab.example.org:group/sub/b.git", "https://gitlab.example.org/group/sub/b/-/commit/"),
        ("ssh://git@forgejo.example.org:2222/a/b.git", "https://forgejo.example.org/a/b/commit/"),
        ("https://bitbucket.example.org/a/b", "https://bitbucket.example.org/a/b/commits/"),
        ("https://notgithub.example.org/a/b", ""),
        ("file:///srv/github/b.git", ""),
        ("/srv/github.git", ""),
        ("ssh://git@github.example.org:a/b.git", ""),
        ("https://[::1/github", ""),
        ("", ""),
    ],
)
def test_commit_url_is_derived_from_the_remote(source: str, expected: str) -> None:
    assert commit_url_prefix(source) == expected


def test_new_section_is_inserted_above_older_ones() -> None:
    first = add_changelog_section("", FIRST)
    assert first == "# Changelog\n\n## 0.1.0 (2026-11-22)\n\nNo changes.\n"
    second = add_changelog_section(first.replace("# Changelog", "# What is new\n\nAll of it."), CHANGES)
    section = f"## 1.4.0 (2026-11-23)\n\n{render_changes(CHANGES)}"
    assert second == f"# What is new\n\nAll of it.\n\n{section}\n## 0.1.0 (2026-11-22)\n\nNo changes.\n"
    assert (
        add_changelog_section("## old\n\n- x\n", FIRST)
        == "# Changelog\n\n## 0.1.0 (2026-11-22)\n\nNo changes.\n\n## old\n\n- x\n"
    )
