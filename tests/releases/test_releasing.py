"""Tests of `release` on real repositories."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Outcome, Project, repository

pytestmark = pytest.mark.slow

CONFIG = """\
schema = 1
[project]
name = "shop"
[release]
require_tests = false
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """Create a project that can be released without an engine: one commit on main, no tags."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / ".lyra.toml").write_text(CONFIG)
    return repository(root, tmp_path, tmp_path / "cache" / "lyra", None)


def tags(project: Project) -> list[str]:
    return project.git("tag", "--list").split()


def refused(outcome: Outcome) -> list[str]:
    """Return the problems of a refused release."""
    assert outcome.code == 3, outcome.text
    assert "Cannot release " in outcome.err
    return [line.strip() for line in outcome.err.splitlines() if line.startswith("  ")]


def hook(directory: Path, name: str, script: str) -> None:
    """Install a hook in a git directory."""
    path = directory / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_release_creates_an_annotated_tag_with_changes(shop: Project) -> None:
    shop.commit("feat(web): greet by name\n\n# not a comment")
    result = shop.lyra("release", "--bump", "minor")
    assert result.code == 0, result.text
    assert "Tagged" in result.out
    commits = {line.partition(" ")[2]: line[:7] for line in shop.git("log", "--format=%H %s").splitlines()}
    assert shop.git("cat-file", "-t", "v0.1.0") == "tag\n"
    assert shop.git("rev-parse", "v0.1.0^{commit}") == shop.git("rev-parse", "HEAD")
    assert shop.git("tag", "--list", "--format=%(contents)", "v0.1.0") == (
        "shop 0.1.0\n\n"
        f"### Features\n\n- **web:** greet by name ({commits['feat(web): greet by name']})\n\n"
        f"### Other changes\n\n- start ({commits['start']})\n\n"
    )
    assert shop.lyra("release.version").out == "0.1.0  (on tag v0.1.0)\n"


def test_next_release_has_later_commits_and_shows_reason(shop: Project) -> None:
    shop.git("tag", "v1.2.3")
    shop.commit("fix!: another port")
    shop.commit("feat: more")
    result = shop.lyra("release", "--bump", "auto")
    assert result.code == 0, result.text
    assert "Release 2.0.0 after 1.2.3: tag v2.0.0" in result.out
    assert "(major, breaking changes)" in result.out
    assert f"  {shop.git('rev-parse', 'HEAD~')[:7]} fix!: another port" in result.out.splitlines()
    assert "start" not in shop.git("tag", "--list", "--format=%(contents)", "v2.0.0")


def test_dry_run_shows_plan_and_problems(shop: Project) -> None:
    dry_run = shop.lyra("release", "--dry-run", "--json")
    assert dry_run.code == 0, dry_run.text
    document = json.loads(dry_run.out)
    assert (document["version"], document["tag"], document["problems"]) == ("0.1.0", "v0.1.0", [])
    (shop.root / "new").write_text("x")
    assert refused(shop.lyra("release", "--dry-run")) == ["tree: not committed: new; commit or ignore them"]
    assert tags(shop) == []


def test_pre_release_becomes_release_on_the_same_commit(shop: Project) -> None:
    assert shop.lyra("release", "--pre", "rc").code == 0
    assert refused(shop.lyra("release", "--pre", "rc"))[0].endswith(
        "is already tagged as 0.1.0-rc.1; commit something first"
    )
    assert shop.lyra("release").code == 0
    assert tags(shop) == ["v0.1.0", "v0.1.0-rc.1"]
    assert shop.lyra("release.version").out.startswith("0.1.0 ")


def test_all_release_problems_are_reported_at_once(shop: Project) -> None:
    shop.git("tag", "v1.0.0")
    shop.git("switch", "--quiet", "--create", "side")
    shop.git("config", "user.useConfigOnly", "true")
    shop.git("config", "--unset", "user.email")
    (shop.root / "new").write_text("x")
    problems = refused(shop.lyra("release", "--version", "1.0.0-dev.lock", "--push", "--changelog", "NEWS.md"))
    head = shop.git("rev-parse", "HEAD")[:7]
    assert problems[:6] == [
        "tree: not committed: new; commit or ignore them",
        "branch: on side; release.branches allows main",
        f"commit: {head} is already tagged as 1.0.0; commit something first",
        "version: 1.0.0-dev.lock is not higher than 1.0.0, the highest of the line 1.0; raise it",
        "version: 1.0.0-dev.lock looks like a development version; use another identifier than dev",
        "tag: invalid tag name v1.0.0-dev.lock; choose another version or change release.tag",
    ]
    assert problems[6].startswith("tagger: ")
    assert "user.email" in problems[6]
    assert problems[7:] == ["push: no remote configured"]
    assert tags(shop) == ["v1.0.0"]


def test_unfinished_git_operation_refuses_release(shop: Project) -> None:
    shop.git("switch", "--quiet", "--create", "side")
    shop.commit("beside")
    shop.git("switch", "--quiet", "main")
    shop.commit("ahead")
    shop.git("merge", "--quiet", "--no-commit", "--strategy", "ours", "side")
    assert shop.git("status", "--porcelain") == "", "the merge changes no file"
    problem = "tree: unfinished merge; run `git merge --continue` or `git merge --abort`"
    assert refused(shop.lyra("release")) == [problem]
    assert tags(shop) == []
    shop.git("merge", "--abort")
    shop.git("revert", "--no-commit", "HEAD")
    assert refused(shop.lyra("release")) == [problem.replace("merge", "revert")]
    shop.git("revert", "--abort")
    assert shop.lyra("release").code == 0


def test_many_changed_paths_are_counted(shop: Project) -> None:
    for number in range(7):
        (shop.root / f"new{number}").write_text("x")
    (problem,) = refused(shop.lyra("release"))
    assert problem == "tree: not committed: new0, new1, new2, new3, new4 and 2 more; commit or ignore them"


@pytest.mark.parametrize(
    ("branches", "switch", "allowed"),
    [
        ('["main", "stable/*"]', ("--create", "stable/1.x"), True),
        ('["*"]', ("--detach",), True),
        ('["main"]', ("--detach",), False),
        ("[]", ("--create", "other"), False),
    ],
)
def test_release_requires_an_allowed_branch(
    shop: Project, branches: str, switch: tuple[str, ...], allowed: bool
) -> None:
    shop.replace(".lyra.toml", "[release]\n", f"[release]\nbranches = {branches}\n")
    shop.commit()
    shop.git("switch", "--quiet", *switch)
    result = shop.lyra("release")
    assert (result.code == 0) is allowed, result.text
    if not allowed:
        assert refused(result)[0].startswith("branch: ")


def test_version_must_be_above_all_of_its_line(shop: Project) -> None:
    shop.git("tag", "v1.0.0")
    shop.git("switch", "--quiet", "--create", "elsewhere")
    shop.commit("another future")
    shop.git("tag", "v1.1.5")
    shop.git("tag", "v2.0.0")
    shop.git("switch", "--quiet", "main")
    shop.commit()
    (problem,) = refused(shop.lyra("release", "--bump", "minor"))
    assert problem == "version: 1.1.0 is not higher than 1.1.5, the highest of the line 1.1; raise it"
    assert shop.lyra("release", "--bump", "patch").code == 0, "older lines can still be released"
    shop.commit()
    (problem,) = refused(shop.lyra("release", "--version", "0.9.0"))
    assert problem == "version: 0.9.0 is not higher than 1.0.1, the highest of this history; raise it"


def test_versions_that_collide_are_refused(shop: Project) -> None:
    assert shop.lyra("release", "--version", "1.0.0-RC.1").code == 0
    shop.commit()
    (problem,) = refused(shop.lyra("release", "--version", "1.0.0-rc.1"))
    assert problem == "version: 1.0.0-rc.1 differs from 1.0.0-RC.1 only in case; choose another one"
    (problem,) = refused(shop.lyra("release", "--version", "1.0.0-s" + "x" * 122))
    assert problem == "version: 129 characters; image tags are limited to 128"


def test_untested_set_is_refused_if_tests_are_required(shop: Project) -> None:
    shop.replace(".lyra.toml", "require_tests = false", "require_tests = true")
    shop.commit()
    (problem,) = refused(shop.lyra("release", DOCKER_HOST="unix:///nowhere/docker.sock"))
    assert problem.startswith("tests: ")
    assert tags(shop) == []


def test_release_refuses_shallow_clone(shop: Project, tmp_path: Path) -> None:
    shop.git("tag", "v1.0.0")
    shop.commit()
    clone = Project(tmp_path / "clone", shop.environment)
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{shop.root}", clone.root], check=True)
    clone.git("config", "user.name", "Ada")
    clone.git("config", "user.email", "ada@example.org")
    version = clone.lyra("release.version")
    assert "The clone is shallow" in version.err
    assert "git fetch --unshallow --tags" in version.err
    assert "tree: the clone is shallow" in refused(clone.lyra("release"))[0]
    clone.git("fetch", "--quiet", "--unshallow", "--tags")
    assert clone.lyra("release.version").out.startswith("1.0.1-dev.1+g")


def test_tag_prefix_separates_projects_of_a_repository(shop: Project) -> None:
    part = Project(shop.root / "web", shop.environment)
    part.root.mkdir()
    text = (shop.root / ".lyra.toml").read_text().replace("[release]", '[release]\ntag = "web/v{version}"')
    (part.root / ".lyra.toml").write_text(text.replace('"shop"', '"web"'))
    shop.git("tag", "v3.0.0")
    shop.commit("feat: the web part")
    (shop.root / "other").write_text("x")
    shop.commit("feat: no part of it")
    assert part.lyra("release").code == 0
    assert tags(shop) == ["v3.0.0", "web/v0.1.0"]
    message = shop.git("tag", "--list", "--format=%(contents)", "web/v0.1.0")
    assert message.startswith("web 0.1.0\n")
    assert "the web part" in message
    assert "no part of it" not in message


def test_changelog_section_keeps_the_version_clean(shop: Project) -> None:
    (shop.root / "NEWS.md").write_text("# News\n\n## 0.0.9 (2026-01-01)\n\n- old\n")
    (shop.root / "NEWS.md").chmod(0o664)
    shop.commit("feat: news")
    result = shop.lyra("release", "--changelog", "NEWS.md", "release.version")
    assert result.code == 0, result.text
    assert result.out.endswith("0.1.0  (on tag v0.1.0)\n")
    news = (shop.root / "NEWS.md").read_text()
    assert news.startswith("# News\n\n## 0.1.0 (")
    assert news.endswith(")\n\n## 0.0.9 (2026-01-01)\n\n- old\n")
    assert shop.git("status", "--porcelain") == " M NEWS.md\n"
    assert (shop.root / "NEWS.md").stat().st_mode & 0o777 == 0o664


def test_changelog_in_a_build_context_is_refused(shop: Project) -> None:
    with (shop.root / ".lyra.toml").open("a") as file:
        file.write('[images.web]\ncontext = "."\n[services.web]\nimage = "web"\n')
    (shop.root / "Dockerfile").write_text("FROM scratch\n")
    (shop.root / ".dockerignore").write_text(".git\n.lyra\npromotion\n")
    shop.commit()
    (problem,) = refused(shop.lyra("release", "--changelog", "NEWS.md"))
    assert problem == "changelog: NEWS.md is in the build context of web; add it to .dockerignore"
    (shop.root / ".dockerignore").write_text(".git\n.lyra\npromotion\n*.md\n")
    shop.commit()
    assert shop.lyra("release", "--changelog", "NEWS.md").code == 0


def test_failed_tag_leaves_nothing(shop: Project) -> None:
    shop.git("config", "tag.gpgSign", "true")
    shop.git("config", "gpg.program", "false")
    result = shop.lyra("release", "--changelog", "NEWS.md")
    assert result.code == 3, result.text
    assert "git tag failed" in result.err
    assert tags(shop) == []
    assert shop.git("status", "--porcelain") == ""
    shop.git("config", "gpg.program", "gpg")
    shop.git("config", "tag.gpgSign", "false")
    assert shop.lyra("release").code == 0


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_tag_is_signed_if_git_is_configured_to(shop: Project, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "signers").write_text(f"ada@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in {
        "tag.gpgSign": "true",
        "gpg.format": "ssh",
        "user.signingKey": str(key),
        "gpg.ssh.allowedSignersFile": str(tmp_path / "signers"),
    }.items():
        shop.git("config", name, value)
    assert shop.lyra("release").code == 0
    shop.git("tag", "--verify", "v0.1.0")


@pytest.fixture
def remote(shop: Project, tmp_path: Path) -> Project:
    """Create the remote that shop pushes to."""
    bare = Project(tmp_path / "remote.git", shop.environment)
    subprocess.run(["git", "clone", "--quiet", "--bare", shop.root, bare.root], check=True)
    shop.git("remote", "add", "origin", str(bare.root))
    return bare


def test_push_sends_the_tag_to_the_remote(shop: Project, remote: Project) -> None:
    assert shop.lyra("release").code == 0
    assert tags(remote) == []
    shop.commit()
    result = shop.lyra("release", "--push", "--json")
    assert result.code == 0, result.text
    assert json.loads(result.out)["pushed_to"] == "origin"
    assert tags(remote) == ["v0.1.1"]
    assert remote.git("rev-parse", "v0.1.1") == shop.git("rev-parse", "v0.1.1")


def test_remote_problems_are_reported_before_tagging(shop: Project, remote: Project) -> None:
    remote.git("tag", "v0.1.0", "main")
    (problem,) = refused(shop.lyra("release", "--push"))
    assert problem == "push: the remote origin already has the tag v0.1.0"
    shop.git("remote", "set-url", "origin", "/nowhere/remote.git")
    (problem,) = refused(shop.lyra("release", "--push"))
    assert problem.startswith("push: cannot query the remote origin; ")


def test_push_is_refused_if_upstream_has_other_commits(shop: Project, remote: Project, tmp_path: Path) -> None:
    shop.git("push", "--quiet", "--set-upstream", "origin", "main")
    other = Project(tmp_path / "other", shop.environment)
    subprocess.run(["git", "clone", "--quiet", remote.root, other.root], check=True)
    other.git("config", "user.name", "Bob")
    other.git("config", "user.email", "bob@example.org")
    other.commit("fix: theirs")
    other.git("push", "--quiet")
    theirs = other.git("rev-parse", "--short=7", "HEAD").strip()
    advice = f"origin main at {theirs}; run `git pull`, then `lyra build test`"

    (problem,) = refused(shop.lyra("release", "--push"))
    assert problem == f"upstream: main is behind, or has diverged from, {advice}", "their commit is unknown here"
    shop.git("fetch", "--quiet")
    (problem,) = refused(shop.lyra("release", "--push"))
    assert problem == f"upstream: main is behind {advice}"
    shop.commit("fix: ours")
    (shop.root / "new").write_text("x")
    problems = refused(shop.lyra("release", "--push", "--dry-run"))
    assert problems == [
        "tree: not committed: new; commit or ignore them",
        f"upstream: main has diverged from {advice}",
    ]
    (shop.root / "new").unlink()
    assert tags(shop) == tags(remote) == []

    shop.git("rebase", "--quiet", "origin/main")
    assert shop.lyra("release", "--push").code == 0, "only ahead"
    assert tags(remote) == ["v0.1.0"]
    shop.commit("fix: more")
    remote.git("update-ref", "-d", "refs/heads/main")
    assert shop.lyra("release", "--push").code == 0, "the branch is not at the remote"


def test_refused_push_deletes_the_tag(shop: Project, remote: Project) -> None:
    (shop.root / "NEWS.md").write_text("# News\n")
    shop.commit()
    hook(remote.root, "pre-receive", "echo no releases on Fridays; exit 1")
    result = shop.lyra("release", "--push", "--changelog", "NEWS.md")
    assert result.code == 3, result.text
    assert "no releases on Fridays" in result.err
    assert tags(shop) == tags(remote) == []
    assert shop.git("status", "--porcelain") == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_push_leaves_no_tag(shop: Project, remote: Project, tmp_path: Path, number: int) -> None:
    hook(shop.root / ".git", "pre-push", f"touch {tmp_path}/pushing; sleep 5; exit 1")
    running = shop.start("release", "--push")
    wait_for(tmp_path / "pushing")
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, out + err
    assert tags(shop) == tags(remote) == []
    assert shop.lyra("release").code == 0, "it can be released afterwards"


def test_accepted_push_stays_released_when_interrupted(shop: Project, remote: Project, tmp_path: Path) -> None:
    hook(remote.root, "post-receive", f"touch {tmp_path}/accepted; sleep 5")
    running = shop.start("release", "--push")
    wait_for(tmp_path / "accepted")
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, out + err
    assert "origin already accepted v0.1.0: it stays released" in err
    assert tags(shop) == tags(remote) == ["v0.1.0"]


def pause_tagging(shop: Project, directory: Path) -> None:
    """Make git create the file `tagging` before a tag and wait for the file `go`."""
    wait = f"touch {directory}/tagging; until [ -e {directory}/go ]; do sleep 0.05; done"
    hook(shop.root / ".git", "reference-transaction", f'if [ "$1" = prepared ]; then {wait}; fi')


def second_checkout(shop: Project, directory: Path) -> Project:
    """Create another checkout of shop, which has a lock of its own but the same tags."""
    shop.replace(".lyra.toml", "[release]\n", '[release]\nbranches = ["*"]\n')
    shop.commit()
    other = Project(directory / "other", shop.environment)
    shop.git("worktree", "add", "--quiet", "--detach", str(other.root))
    return other


def test_concurrent_release_of_a_checkout_is_refused(shop: Project, tmp_path: Path) -> None:
    pause_tagging(shop, tmp_path)
    first = shop.start("release", "--bump", "minor")
    wait_for(tmp_path / "tagging")
    second = shop.lyra("release", "--bump", "major")
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=20)
    assert first.returncode == 0, out + err
    assert second.code == 3
    assert f"The release of this checkout is in use by another process (pid {first.pid})" in second.err
    assert tags(shop) == ["v0.1.0"]


def test_two_checkouts_cannot_create_the_same_version(shop: Project, tmp_path: Path) -> None:
    """Git lets only one of them create the tag."""
    other = second_checkout(shop, tmp_path)
    pause_tagging(shop, tmp_path)
    first = shop.start("release")
    wait_for(tmp_path / "tagging")
    second = other.lyra("release")
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=20)
    assert first.returncode == 0, out + err
    assert second.code == 3
    assert "Another process created v0.1.0 at the same time" in second.err
    assert tags(shop) == ["v0.1.0"]
    assert shop.git("cat-file", "-t", "v0.1.0") == "tag\n"


def test_failed_release_keeps_an_equal_tag_of_another(shop: Project, tmp_path: Path) -> None:
    other = second_checkout(shop, tmp_path)
    signer = tmp_path / "signer"
    signer.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/signing; until [ -e {tmp_path}/go ]; do sleep 0.05; done\n"
        "echo signature; echo '[GNUPG:] SIG_CREATED ' >&2\n"
    )
    signer.chmod(0o755)
    signing = {"tag.gpgSign": "true", "gpg.program": str(signer)}
    variables = {"GIT_CONFIG_COUNT": str(len(signing))}
    for number, (key, value) in enumerate(signing.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    slow = shop.start("release", **variables)
    wait_for(tmp_path / "signing")
    assert other.lyra("release").code == 0
    (tmp_path / "go").touch()
    _, err = slow.communicate(timeout=20)
    assert slow.returncode == 3, err
    assert "Another process created v0.1.0 at the same time" in err
    assert tags(shop) == ["v0.1.0"]


def test_killed_release_leaves_no_partial_tag(shop: Project, tmp_path: Path) -> None:
    pause_tagging(shop, tmp_path)
    running = shop.start("release")
    wait_for(tmp_path / "tagging")
    running.kill()
    running.communicate()
    assert tags(shop) == []
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 20
    while not tags(shop):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shop.lyra("release.version").out == "0.1.0  (on tag v0.1.0)\n", "git went on and created the tag"


def test_tagged_versions_are_listed_highest_first(shop: Project) -> None:
    assert "No releases yet" in shop.lyra("release.list").out
    for name in ("v1.9.0", "v1.10.0", "v1.10.0-rc.1", "nightly"):
        shop.git("tag", name)
    rows = [line.split() for line in shop.lyra("release.list").out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1.10.0", "1.10.0-rc.1", "1.9.0"]
    assert all(row[2:] == [shop.git("rev-parse", "HEAD")[:7], "never", "promoted"] for row in rows)
    document = json.loads(shop.lyra("release.list", "--json").out)
    assert [release["bundle"] for release in document] == [None, None, None]


def test_version_is_shown_in_all_formats(shop: Project) -> None:
    shop.git("tag", "v1.4.0-rc.1+b")
    document = json.loads(shop.lyra("release.version", "--json").out)
    formats = {key: document[key] for key in ("semver", "image_tag", "file_name", "pep440", "shallow")}
    assert formats == {
        "semver": "1.4.0-rc.1+b",
        "image_tag": "1.4.0-rc.1_b",
        "file_name": "1.4.0-rc.1__b",
        "pep440": "1.4.0rc1+b",
        "shallow": False,
    }
    assert shop.lyra("release.version", "--image-tag", "1.4.0-rc.1_b").out == "1.4.0-rc.1+b\n"
    assert shop.lyra("release.version", "--image-tag", "latest").code == 2
