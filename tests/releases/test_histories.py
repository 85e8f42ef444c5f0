"""Tests of versions in random git histories, against a model of the commit graph."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semver import Version

from lyra_tasks.releases.next_version import ReleaseRequest, decide_version, find_last_release
from lyra_tasks.versions.changelog import list_commits_since
from lyra_tasks.versions.git import DEFAULT_TAG_PATTERN, collect_git_facts
from lyra_tasks.versions.version import compute_version, find_previous_release, list_releases
from tests.thorough import examples

pytestmark = pytest.mark.slow

NAMES = (
    "v0.1.0", "v0.2.0", "v1.0.0-rc.1", "v1.0.0", "v1.0.1", "v1.9.0", "v1.10.0", "v2.0.0-alpha.1", "v2.0.0",
    "web/v9.0.0", "nightly", "v3",
)  # fmt: skip
ADA = "Ada <ada@example.org>"


@pytest.fixture(scope="module", autouse=True)
def own_git() -> Iterator[None]:
    """Isolate git from the machine's configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Ada")
            patch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
        yield


@dataclass(frozen=True)
class History:
    """Commits as numbers with their parents, and tags on them; HEAD is the last_release commit."""

    parents: tuple[tuple[int, ...], ...]
    tags: dict[str, int]

    def reach(self, commit: int) -> set[int]:
        """Return a commit and its ancestors."""
        return {commit}.union(*(self.reach(parent) for parent in self.parents[commit]))

    def version(self, short: str) -> str:
        """Return the expected version of a clean tree."""
        head = len(self.parents) - 1
        ancestors = self.reach(head)
        commit_by_version = {
            Version.parse(name[1:]): commit
            for name, commit in self.tags.items()
            if name.startswith("v") and name != "v3" and commit in ancestors
        }
        at_head = [version for version, commit in commit_by_version.items() if commit == head]
        if at_head:
            return str(max(at_head))
        if not commit_by_version:
            return f"0.1.0-dev.{len(ancestors)}+g{short}"
        highest = max(commit_by_version)
        distance = len(ancestors - self.reach(commit_by_version[highest]))
        base = f"{highest}.dev" if highest.prerelease else f"{highest.bump_patch()}-dev"
        return f"{base}.{distance}+g{short}"

    def write(self, directory: Path) -> None:
        """Write the history to a repository, with HEAD on main."""
        lines = []
        for number, parents in enumerate(self.parents):
            lines += [f"commit refs/heads/main\nmark :{number + 1}\ncommitter {ADA} {1_700_000_000 + number} +0000"]
            lines += [f"data <<END\nfix: {number}\nEND"]
            lines += [f"{'merge' if index else 'from'} :{parent + 1}" for index, parent in enumerate(parents)]
            lines += [""]
        for index, (name, number) in enumerate(sorted(self.tags.items())):
            if index % 2:
                lines += [f"tag {name}\nfrom :{number + 1}\ntagger {ADA} 1700000000 +0000\ndata 0\n"]
            else:
                lines += [f"reset refs/tags/{name}\nfrom :{number + 1}\n"]
        run(directory, "init", "--quiet", "--initial-branch", "main")
        subprocess.run(["git", "fast-import", "--quiet"], cwd=directory, input="\n".join(lines).encode(), check=True)


def run(directory: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


@st.composite
def histories(draw: st.DrawFn) -> History:
    count = draw(st.integers(1, 8))
    parents: list[tuple[int, ...]] = [()]
    for number in range(1, count):
        earlier = st.integers(0, number - 1)
        parents.append(tuple(draw(st.lists(earlier, min_size=1, max_size=2, unique=True))))
    tags = draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, count - 1), max_size=5))
    return History(tuple(parents), tags)


@settings(max_examples=examples(15, thorough=40), deadline=None)
@given(histories())
def test_version_of_any_history_matches_its_graph(history: History) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        history.write(directory)
        facts = collect_git_facts(directory)
        assert compute_version(facts).semver == history.version(facts.short_commit)
        head = len(history.parents) - 1
        ancestors = history.reach(head)
        reachable = {release.tag for release in list_releases(directory, DEFAULT_TAG_PATTERN, reachable=True)}
        known = {name for name in history.tags if name[0] == "v" and name != "v3"}
        assert {release.tag for release in list_releases(directory, DEFAULT_TAG_PATTERN)} == known
        assert reachable == {name for name in known if history.tags[name] in ancestors}
        for tag in reachable:
            since = ancestors - history.reach(history.tags[tag])
            listed = {int(commit.subject) for commit in list_commits_since(directory, tag)}
            assert listed == {number for number in since if len(history.parents[number]) < 2}


STEPS = st.tuples(
    st.sampled_from(["feat: x", "fix: x", "feat!: x", "Something"]),
    st.sampled_from(["major", "minor", "patch", "auto"]),
    st.sampled_from(["", "", "rc", "alpha"]),
)


@settings(max_examples=examples(6, thorough=12), deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6))
def test_each_commit_is_in_the_changes_of_one_release(steps: list[tuple[str, str, str]]) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        run(directory, "init", "--quiet", "--initial-branch", "main")
        listed: list[str] = []
        versions: list[Version] = []
        for message, bump, pre in steps:
            run(directory, "commit", "--quiet", "--allow-empty", "--message", message)
            reachable = list_releases(directory, DEFAULT_TAG_PATTERN, reachable=True)
            last_release = find_last_release(reachable)
            decision = decide_version(
                ReleaseRequest(bump, pre),
                reachable,
                list_commits_since(directory, last_release.tag if last_release else ""),
            )
            versions.append(decision.version)
            if not decision.version.prerelease:
                listed += [
                    commit.id
                    for commit in list_commits_since(directory, decision.previous.tag if decision.previous else "")
                ]
            run(directory, "tag", "--annotate", "--message", "x", f"v{decision.version}")
            assert compute_version(collect_git_facts(directory)).semver == str(decision.version)
            assert (
                find_previous_release(decision.version, list_releases(directory, DEFAULT_TAG_PATTERN))
                == decision.previous
            )
        ordered = [version for version in versions if not version.prerelease]
        assert ordered == sorted(ordered, key=lambda version: version.to_tuple()[:3])
        assert len({str(version) for version in versions}) == len(versions)
        final = find_last_release(list_releases(directory, DEFAULT_TAG_PATTERN))
        expected = run(directory, "rev-list", final.tag).split() if final else []
        assert sorted(listed) == sorted(expected)
