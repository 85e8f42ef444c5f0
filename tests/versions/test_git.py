"""Facts about real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.versions.git import collect_git_facts, find_missing_submodules, strip_credentials
from lyra_tasks.versions.version import compute_version

TIME = 1_700_000_000


@pytest.fixture(autouse=True)
def own_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git without the machine's configuration, with a fixed author and time."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
        monkeypatch.setenv(f"GIT_{role}_DATE", f"{TIME} +0000")


def run(folder: Path, *words: str) -> str:
    """The output of a git command that must succeed."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    folder = tmp_path / "repo"
    folder.mkdir()
    run(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("ignored\n")
    return commit(folder, "file", "one\n")


def commit(folder: Path, name: str, text: str) -> Path:
    """Write a file and commit everything."""
    (folder / name).write_text(text)
    run(folder, "add", "-A")
    run(folder, "commit", "-q", "-m", f"write {name}")
    return folder


def test_a_clean_checkout_is_its_commit(repo: Path) -> None:
    found = collect_git_facts(repo)
    assert found.commit == run(repo, "rev-parse", "HEAD")
    assert found.short_commit == run(repo, "rev-parse", "--short", "HEAD")
    assert (found.top, found.commit_time, found.branch) == (repo, TIME, "main")
    assert (found.is_dirty, found.changed_paths, found.dirty_hash) == (False, (), "")
    assert (found.is_shallow, found.tags, found.distance, found.remote_url) == (False, (), 1, "")


def test_the_highest_reachable_tag_counts_and_annotated_tags_are_followed(repo: Path) -> None:
    first = run(repo, "rev-parse", "HEAD")
    run(repo, "tag", "-a", "-m", "release", "v1.10.0")
    run(repo, "tag", "v1.9.0")
    commit(repo, "file", "two\n")
    run(repo, "tag", "broken-v9")
    commit(repo, "file", "three\n")
    found = collect_git_facts(repo)
    assert {(tag.name, tag.commit) for tag in found.tags} >= {("v1.10.0", first), ("v1.9.0", first)}
    assert found.distance == 2
    assert compute_version(found).semver == f"1.10.1-dev.2+g{found.short_commit}"


def test_on_a_tag_the_version_is_the_tag_and_a_change_makes_it_a_snapshot(repo: Path) -> None:
    run(repo, "tag", "-a", "-m", "release", "v1.2.3")
    assert compute_version(collect_git_facts(repo)).semver == "1.2.3"
    (repo / "file").write_text("changed\n")
    found = collect_git_facts(repo)
    assert compute_version(found).semver == f"1.2.4-dev.0+g{found.short_commit}.dirty.{found.dirty_hash}"


def test_tags_of_other_branches_do_not_count(repo: Path) -> None:
    run(repo, "switch", "-q", "-c", "other")
    commit(repo, "file", "two\n")
    run(repo, "tag", "v5.0.0")
    run(repo, "switch", "-q", "main")
    assert collect_git_facts(repo).tags == ()


def test_the_distance_is_counted_from_the_tag_with_the_prefix(repo: Path) -> None:
    run(repo, "tag", "web/v1.0.0")
    commit(repo, "file", "two\n")
    run(repo, "tag", "v7.0.0")
    commit(repo, "file", "three\n")
    assert collect_git_facts(repo).distance == 1
    assert collect_git_facts(repo, "web/v{version}").distance == 2


def test_changes_are_named_and_hashed_by_content_alone(repo: Path) -> None:
    seen = {collect_git_facts(repo).dirty_hash}
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
        seen.add(collect_git_facts(repo).dirty_hash)
    assert len(seen) == 9
    before = collect_git_facts(repo)
    assert before.changed_paths == ("file", "link", "untracked ü\n")
    run(repo, "config", "diff.noprefix", "true")
    run(repo, "config", "status.showUntrackedFiles", "no")
    run(repo, "config", "color.ui", "always")
    os.utime(repo / "untracked ü\n", (1, 1))
    run(repo, "add", "-A")
    assert collect_git_facts(repo) == before


def test_ignored_files_and_new_times_leave_a_checkout_clean(repo: Path) -> None:
    (repo / "ignored").write_text("x")
    os.utime(repo / "file", (1, 1))
    assert not collect_git_facts(repo).is_dirty


def test_what_lyra_writes_does_not_make_a_checkout_dirty(repo: Path) -> None:
    (repo / "sub").mkdir()
    commit(repo, "sub/file", "x")
    (repo / "sub" / "promotion").mkdir()
    (repo / "sub" / "promotion" / "bundle").write_text("x")
    assert collect_git_facts(repo / "sub").changed_paths == ("sub/promotion/bundle",)
    assert not collect_git_facts(repo / "sub", outputs=("promotion", "/elsewhere", "../../out")).is_dirty
    (repo / "outside").write_text("x")
    assert collect_git_facts(repo / "sub", outputs=("promotion",)).changed_paths == ("outside",)


def test_a_changed_submodule_counts_with_its_content(repo: Path, tmp_path: Path) -> None:
    run(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(commit_new(tmp_path / "lib")), "lib")
    run(repo, "commit", "-q", "-m", "add a submodule")
    hashes = set()
    (repo / "lib" / "deep").mkdir()
    for text in ("one", "two"):
        (repo / "lib" / "deep" / "new").write_text(text)
        found = collect_git_facts(repo)
        assert found.changed_paths == ("lib",)
        hashes.add(found.dirty_hash)
    assert len(hashes) == 2


def test_a_submodule_that_is_not_there_is_told_though_git_calls_the_tree_clean(repo: Path, tmp_path: Path) -> None:
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


def commit_new(folder: Path) -> Path:
    """Another repository with one commit."""
    folder.mkdir()
    run(folder, "init", "-q")
    return commit(folder, "file", "x")


def test_a_detached_shallow_clone_is_told(repo: Path, tmp_path: Path) -> None:
    commit(repo, "file", "two\n")
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", "--depth=1", f"file://{repo}", str(clone))
    run(clone, "switch", "-q", "--detach")
    found = collect_git_facts(clone)
    assert (found.is_shallow, found.branch, found.distance) == (True, "", 1)


def test_the_remote_is_told_without_credentials(repo: Path) -> None:
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
def test_credentials_are_taken_out_of_a_url(url: str, expected: str) -> None:
    assert strip_credentials(url) == expected


def test_a_hook_does_not_lead_to_another_repository(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = commit_new(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert collect_git_facts(repo).top == repo


def test_reading_facts_changes_nothing_in_the_repository(repo: Path) -> None:
    os.utime(repo / "file", (1, 1))
    before = {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")}
    collect_git_facts(repo)
    assert {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")} == before


def test_a_folder_outside_of_a_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="is not in a git repository") as caught:
        collect_git_facts(tmp_path)
    assert caught.value.hint == "git init, add the files, and commit"


def test_a_repository_without_commits_is_told(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q")
    with pytest.raises(PreconditionError, match="has no commits") as caught:
        collect_git_facts(tmp_path)
    assert caught.value.hint == "commit first"


def test_without_git_the_hint_says_to_install_it(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreconditionError, match="git is not installed") as caught:
        collect_git_facts(repo)
    assert caught.value.hint == "install git"


def test_a_repository_of_another_owner_gives_gits_own_advice(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Git's own switch for this case: it takes every repository for another user's
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(PreconditionError, match="it belongs to another user") as caught:
        collect_git_facts(repo)
    assert caught.value.hint == f"git config --global --add safe.directory {repo}"


def test_a_file_that_git_cannot_handle_is_told_in_gits_words(repo: Path) -> None:
    (repo / ".git" / "index").write_bytes(b"broken")
    with pytest.raises(PreconditionError, match="git status failed") as caught:
        collect_git_facts(repo)
    assert any("index file" in line for line in caught.value.details)
