"""Versions of random histories made with real git, against a model that knows the whole graph."""

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

from lyra_tasks.release.next_version import ReleaseRequest, decide_version, find_last_release
from lyra_tasks.versions.changelog import list_commits_since
from lyra_tasks.versions.formats import DEFAULT_TAG_PATTERN
from lyra_tasks.versions.git import collect_git_facts
from lyra_tasks.versions.version import compute_version, find_previous_release, list_releases

NAMES = (
    "v0.1.0", "v0.2.0", "v1.0.0-rc.1", "v1.0.0", "v1.0.1", "v1.9.0", "v1.10.0", "v2.0.0-alpha.1", "v2.0.0",
    "web/v9.0.0", "nightly", "v3",
)  # fmt: skip
ADA = "Ada <ada@example.org>"


@pytest.fixture(scope="module", autouse=True)
def own_git() -> Iterator[None]:
    """Git without the machine's configuration."""
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
    """Commits by number, each with the numbers of its parents; tags by name, each on a commit; HEAD is the last one."""

    parents: tuple[tuple[int, ...], ...]
    tags: dict[str, int]

    def reach(self, commit: int) -> set[int]:
        """A commit and everything before it."""
        return {commit}.union(*(self.reach(each) for each in self.parents[commit]))

    def version(self, short: str) -> str:
        """What DESIGN says the version is, for a clean tree."""
        head = len(self.parents) - 1
        behind = self.reach(head)
        found = {
            Version.parse(name[1:]): commit
            for name, commit in self.tags.items()
            if name.startswith("v") and name != "v3" and commit in behind
        }
        here = [version for version, commit in found.items() if commit == head]
        if here:
            return str(max(here))
        if not found:
            return f"0.1.0-dev.{len(behind)}+g{short}"
        top = max(found)
        distance = len(behind - self.reach(found[top]))
        base = f"{top}.dev" if top.prerelease else f"{top.bump_patch()}-dev"
        return f"{base}.{distance}+g{short}"

    def write(self, folder: Path) -> None:
        """The history as a repository, with HEAD on main."""
        lines = []
        for number, parents in enumerate(self.parents):
            lines += [f"commit refs/heads/main\nmark :{number + 1}\ncommitter {ADA} {1_700_000_000 + number} +0000"]
            lines += [f"data <<END\nfix: {number}\nEND"]
            lines += [f"{'merge' if place else 'from'} :{each + 1}" for place, each in enumerate(parents)]
            lines += [""]
        for place, (name, number) in enumerate(sorted(self.tags.items())):
            if place % 2:
                lines += [f"tag {name}\nfrom :{number + 1}\ntagger {ADA} 1700000000 +0000\ndata 0\n"]
            else:
                lines += [f"reset refs/tags/{name}\nfrom :{number + 1}\n"]
        run(folder, "init", "--quiet", "--initial-branch", "main")
        subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input="\n".join(lines).encode(), check=True)


def run(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@st.composite
def histories(draw: st.DrawFn) -> History:
    count = draw(st.integers(1, 8))
    parents: list[tuple[int, ...]] = [()]
    for number in range(1, count):
        before = st.integers(0, number - 1)
        parents.append(tuple(draw(st.lists(before, min_size=1, max_size=2, unique=True))))
    tags = draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, count - 1), max_size=5))
    return History(tuple(parents), tags)


@settings(max_examples=40, deadline=None)
@given(histories())
def test_the_version_of_any_history_is_what_the_graph_says(history: History) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        history.write(folder)
        facts = collect_git_facts(folder)
        assert compute_version(facts).semver == history.version(facts.short_commit)
        head = len(history.parents) - 1
        behind = history.reach(head)
        reachable = {each.tag for each in list_releases(folder, DEFAULT_TAG_PATTERN, reachable=True)}
        known = {name for name in history.tags if name[0] == "v" and name != "v3"}
        assert {each.tag for each in list_releases(folder, DEFAULT_TAG_PATTERN)} == known
        assert reachable == {name for name in known if history.tags[name] in behind}
        for tag in reachable:
            since = behind - history.reach(history.tags[tag])
            told = {int(each.subject) for each in list_commits_since(folder, tag)}
            assert told == {number for number in since if len(history.parents[number]) < 2}


STEPS = st.tuples(
    st.sampled_from(["feat: x", "fix: x", "feat!: x", "Something"]),
    st.sampled_from(["major", "minor", "patch", "auto"]),
    st.sampled_from(["", "", "rc", "alpha"]),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6))
def test_releases_rise_and_every_commit_is_in_the_changes_of_exactly_one(steps: list[tuple[str, str, str]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, "init", "--quiet", "--initial-branch", "main")
        told: list[str] = []
        versions: list[Version] = []
        for message, bump, pre in steps:
            run(folder, "commit", "--quiet", "--allow-empty", "--message", message)
            reachable = list_releases(folder, DEFAULT_TAG_PATTERN, reachable=True)
            last = find_last_release(reachable)
            decision = decide_version(
                ReleaseRequest(bump, pre), reachable, list_commits_since(folder, last.tag if last else "")
            )
            versions.append(decision.version)
            if not decision.version.prerelease:
                told += [
                    each.id for each in list_commits_since(folder, decision.previous.tag if decision.previous else "")
                ]
            run(folder, "tag", "--annotate", "--message", "x", f"v{decision.version}")
            assert compute_version(collect_git_facts(folder)).semver == str(decision.version)
            assert (
                find_previous_release(decision.version, list_releases(folder, DEFAULT_TAG_PATTERN)) == decision.previous
            )
        ordered = [each for each in versions if not each.prerelease]
        assert ordered == sorted(ordered, key=lambda each: each.to_tuple()[:3])
        assert len({str(each) for each in versions}) == len(versions)
        final = find_last_release(list_releases(folder, DEFAULT_TAG_PATTERN))
        expected = run(folder, "rev-list", final.tag).split() if final else []
        assert sorted(told) == sorted(expected)
