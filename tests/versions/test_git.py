"""Tests of git facts on real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lyra_tasks.digests import file_sha256
from lyra_tasks.errors import PreconditionError
from lyra_tasks.versions.git import (
    clean_remote_url,
    collect_git_facts,
    find_missing_submodules,
    hash_changed_files,
    parse_status,
)
from lyra_tasks.versions.head import read_tree
from lyra_tasks.versions.version import compute_version

TIME = 1_700_000_000


@pytest.fixture(autouse=True)
def own_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate git from the machine's configuration, with a fixed author and time."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
        monkeypatch.setenv(f"GIT_{role}_DATE", f"{TIME} +0000")


def run(directory: Path, *arguments: str) -> str:
    """Run a git command that must succeed and return its output."""
    return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Create a repository with one commit of one file."""
    directory = tmp_path / "repo"
    directory.mkdir()
    run(directory, "init", "-q", "-b", "main")
    (directory / ".gitignore").write_text("ignored\n")
    return commit(directory, "file", "one\n")


def commit(directory: Path, name: str, text: str) -> Path:
    """Write a file and commit everything."""
    (directory / name).write_text(text)
    run(directory, "add", "-A")
    run(directory, "commit", "-q", "-m", f"write {name}")
    return directory


def test_known_hash_spares_reading_the_file_again(repo: Path) -> None:
    known_hashes = {"file": file_sha256(repo / "file")}
    expected = hash_changed_files(repo, ["file"])
    (repo / "file").write_text("not read\n")
    assert hash_changed_files(repo, ["file"], known_hashes) == expected
    assert hash_changed_files(repo, ["file"]) != expected


def test_clean_checkout_is_its_commit(repo: Path) -> None:
    facts = collect_git_facts(repo)
    assert facts.commit == run(repo, "rev-parse", "HEAD")
    assert facts.short_commit == run(repo, "rev-parse", "--short", "HEAD")
    assert (facts.top, facts.commit_time, facts.branch) == (repo, TIME, "main")
    assert (facts.is_dirty, facts.changed_paths, facts.dirty_hash) == (False, (), "")
    assert (facts.is_shallow, facts.tags, facts.distance, facts.remote_url) == (False, (), 1, "")


def test_highest_reachable_tag_is_peeled_and_used(repo: Path) -> None:
    first = run(repo, "rev-parse", "HEAD")
    run(repo, "tag", "-a", "-m", "release", "v1.10.0")
    run(repo, "tag", "v1.9.0")
    commit(repo, "file", "two\n")
    run(repo, "tag", "broken-v9")
    commit(repo, "file", "three\n")
    facts = collect_git_facts(repo)
    assert {(tag.name, tag.commit) for tag in facts.tags} >= {("v1.10.0", first), ("v1.9.0", first)}
    assert facts.distance == 2
    assert compute_version(facts).semver == f"1.10.1-dev.2+g{facts.short_commit}"


def test_change_on_a_tag_makes_a_snapshot(repo: Path) -> None:
    run(repo, "tag", "-a", "-m", "release", "v1.2.3")
    assert compute_version(collect_git_facts(repo)).semver == "1.2.3"
    (repo / "file").write_text("changed\n")
    facts = collect_git_facts(repo)
    assert compute_version(facts).semver == f"1.2.4-dev.0+g{facts.short_commit}.dirty.{facts.dirty_hash}"


def test_tags_of_other_branches_are_ignored(repo: Path) -> None:
    run(repo, "switch", "-q", "-c", "other")
    commit(repo, "file", "two\n")
    run(repo, "tag", "v5.0.0")
    run(repo, "switch", "-q", "main")
    assert collect_git_facts(repo).tags == ()


def test_distance_is_counted_from_the_prefixed_tag(repo: Path) -> None:
    run(repo, "tag", "web/v1.0.0")
    commit(repo, "file", "two\n")
    run(repo, "tag", "v7.0.0")
    commit(repo, "file", "three\n")
    assert collect_git_facts(repo).distance == 1
    assert collect_git_facts(repo, "web/v{version}").distance == 2


def test_changes_are_listed_and_hashed_by_content(repo: Path) -> None:
    hashes = {collect_git_facts(repo).dirty_hash}
    other = repo.parent / "link"
    other.symlink_to("other")
    for change in (
        lambda: (repo / "file").write_text("two\n"),
        lambda: (repo / "file").write_text("two!\n"),
        lambda: (repo / "file").chmod(0o755),
        lambda: (repo / "untracked ü\n").write_text("x"),
        lambda: (repo / "untracked ü\n").write_text("y"),
        lambda: (repo / "link").symlink_to("file"),
        lambda: os.replace(other, repo / "link"),
        lambda: (repo / "file").unlink(),
    ):
        change()
        hashes.add(collect_git_facts(repo).dirty_hash)
    assert len(hashes) == 9
    before = collect_git_facts(repo)
    assert before.changed_paths == ("file", "link", "untracked ü\n")
    run(repo, "config", "diff.noprefix", "true")
    run(repo, "config", "status.showUntrackedFiles", "no")
    run(repo, "config", "color.ui", "always")
    os.utime(repo / "untracked ü\n", (1, 1))
    run(repo, "add", "-A")
    assert collect_git_facts(repo) == before


def test_ignored_files_and_new_mtimes_stay_clean(repo: Path) -> None:
    (repo / "ignored").write_text("x")
    os.utime(repo / "file", (1, 1))
    assert not collect_git_facts(repo).is_dirty


def test_own_outputs_stay_clean(repo: Path) -> None:
    (repo / "sub").mkdir()
    commit(repo, "sub/file", "x")
    (repo / "sub" / "promotion").mkdir()
    (repo / "sub" / "promotion" / "bundle").write_text("x")
    assert collect_git_facts(repo / "sub").changed_paths == ("sub/promotion/bundle",)
    assert not collect_git_facts(repo / "sub", outputs=("promotion", "/elsewhere", "../../out")).is_dirty
    (repo / "outside").write_text("x")
    assert collect_git_facts(repo / "sub", outputs=("promotion",)).changed_paths == ("outside",)


def test_changed_submodule_is_hashed_by_content(repo: Path, tmp_path: Path) -> None:
    run(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(commit_new(tmp_path / "lib")), "lib")
    run(repo, "commit", "-q", "-m", "add a submodule")
    hashes = set()
    (repo / "lib" / "deep").mkdir()
    for text in ("one", "two"):
        (repo / "lib" / "deep" / "new").write_text(text)
        facts = collect_git_facts(repo)
        assert facts.changed_paths == ("lib",)
        hashes.add(facts.dirty_hash)
    assert len(hashes) == 2


def test_uninitialized_submodule_is_found(repo: Path, tmp_path: Path) -> None:
    assert find_missing_submodules(repo) == ()
    run(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(commit_new(tmp_path / "lib")), "lib é")
    run(repo, "commit", "-q", "-m", "add a submodule")
    assert find_missing_submodules(repo) == ()
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(repo), str(clone))
    assert not collect_git_facts(clone).is_dirty
    assert find_missing_submodules(clone) == (clone / "lib é",)
    run(clone, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
    assert find_missing_submodules(clone) == ()


def commit_new(directory: Path) -> Path:
    """Create another repository with one commit."""
    directory.mkdir()
    run(directory, "init", "-q")
    return commit(directory, "file", "x")


def test_detached_shallow_clone_is_recognized(repo: Path, tmp_path: Path) -> None:
    commit(repo, "file", "two\n")
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", "--depth=1", f"file://{repo}", str(clone))
    run(clone, "switch", "-q", "--detach")
    facts = collect_git_facts(clone)
    assert (facts.is_shallow, facts.branch, facts.distance) == (True, "", 1)


def test_remote_url_has_no_credentials(repo: Path) -> None:
    run(repo, "remote", "add", "backup", "https://example.org/backup")
    run(repo, "remote", "add", "origin", "https://ada:hunter2@example.org:8443/guestbook.git?token=hunter2")
    assert collect_git_facts(repo).remote_url == "https://example.org:8443/guestbook.git"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hunter2@example.org/x.git", "https://example.org/x.git"),
        ("ssh://git:hunter2@example.org/x.git", "ssh://git@example.org/x.git"),
        ("git@example.org:x.git", "git@example.org:x.git"),
        ("https://a:b@c@example.org/x", "https://example.org/x"),
        ("https://[hunter2@example.org/x", ""),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_credentials_are_removed_from_urls(url: str, expected: str) -> None:
    assert clean_remote_url(url) == expected


def test_git_variables_of_hooks_are_ignored(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = commit_new(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert collect_git_facts(repo).top == repo


def test_collecting_facts_changes_nothing(repo: Path) -> None:
    os.utime(repo / "file", (1, 1))
    before = {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")}
    collect_git_facts(repo)
    assert {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")} == before


def test_directory_outside_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="is not in a git repository") as raised:
        collect_git_facts(tmp_path)
    assert raised.value.hint == "Run `git init && git add . && git commit`"


def test_repository_without_commits_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q")
    with pytest.raises(PreconditionError, match="has no commits") as raised:
        collect_git_facts(tmp_path)
    assert raised.value.hint == "Run `git add . && git commit`"


def test_missing_git_has_an_install_hint(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreconditionError, match="git is not installed") as raised:
        collect_git_facts(repo)
    assert raised.value.hint == "Install git"


def test_foreign_owner_shows_the_advice_of_git(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # git's own switch for tests: it treats every repository as another user's
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(PreconditionError, match="it belongs to another user") as raised:
        collect_git_facts(repo)
    assert raised.value.hint == f"git config --global --add safe.directory {repo}"


def test_git_failure_shows_its_messages(repo: Path) -> None:
    (repo / ".git" / "index").write_bytes(b"broken")
    with pytest.raises(PreconditionError, match="git status failed") as raised:
        collect_git_facts(repo)
    assert any("index file" in line for line in raised.value.details)


def test_names_that_are_not_utf8_are_changes(repo: Path) -> None:
    (repo / os.fsdecode(b"notes-caf\351.txt")).write_text("later")
    run(repo, "checkout", "-q", "-b", os.fsdecode(b"caf\351"))
    run(repo, "remote", "add", "origin", os.fsdecode(b"https://code.example.org/caf\351.git"))
    facts = collect_git_facts(repo)
    assert facts.changed_paths == (os.fsdecode(b"notes-caf\351.txt"),)
    assert (facts.branch, facts.remote_url) == ("caf\\xe9", "https://code.example.org/caf\\xe9.git")
    assert len(facts.dirty_hash) == 8


@pytest.mark.parametrize("output", ["", "# branch.oid", "2 rename", "1 M.", "# a b\0x"])
def test_unknown_status_of_git_is_refused(output: str) -> None:
    with pytest.raises(PreconditionError, match="Cannot read what `git status` prints"):
        parse_status(output)


ALL_FILES = {
    *("file", ".gitignore", ".gitmodules", "app/a", "app/[x]/b", "docs/c"),
    *("lib/file", "lib/in/d", "lib/.git"),
}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["."], ALL_FILES),
        ([".", "lib/in"], ALL_FILES),
        (["app"], {"app/a", "app/[x]/b"}),
        (["app/[x]", "file"], {"app/[x]/b", "file"}),
        (["app/*", ":(top)docs", "missing"], set()),
        (["lib"], {"lib/file", "lib/in/d", "lib/.git"}),
        (["lib/in", "docs"], {"lib/in/d", "lib/.git", "docs/c"}),
        (["../outside", ".."], set()),
        ([], set()),
        ([*(f"x{number}" for number in range(1000)), "app/a", "lib/file"], None),
    ],
)  # fmt: skip
def test_tree_of_a_commit_has_what_was_asked_for(
    repo: Path, tmp_path: Path, paths: list[str], expected: set[str] | None
) -> None:
    lib = commit_new(tmp_path / "lib")
    (lib / "in").mkdir()
    commit(lib, "in/d", "d")
    for directory in ("app/[x]", "docs"):
        (repo / directory).mkdir(parents=True)
    run(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(lib), "lib")
    for name in ("app/a", "app/[x]/b", "docs/c"):
        commit(repo, name, name)
    tree = read_tree(repo, "HEAD", paths)
    assert set(tree) == expected if expected is not None else {"app/a", "lib/file"} <= set(tree)
