"""release on real repositories: what is tagged, what is refused, and that nothing is half done."""

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

CONFIG = """\
schema = 1
[project]
name = "shop"
[release]
require_tests = false
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project that needs no engine to be released: one commit on main, no tags, a state folder of its own."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / ".lyra.toml").write_text(CONFIG)
    return repository(root, tmp_path, tmp_path / "cache" / "lyra", None)


def tags(project: Project) -> list[str]:
    return project.git("tag", "--list").split()


def refused(outcome: Outcome) -> list[str]:
    """The problems that a release was refused for."""
    assert outcome.code == 3, outcome.text
    assert "cannot be released" in outcome.err
    return [line.strip() for line in outcome.err.splitlines() if line.startswith("  ")]


def hook(folder: Path, name: str, script: str) -> None:
    """Install a hook in a git folder."""
    path = folder / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_release_is_an_annotated_tag_with_the_changes_as_its_message(shop: Project) -> None:
    shop.commit("feat(web): greet by name\n\n# not a comment")
    result = shop.lyra("release", "--bump", "minor")
    assert result.code == 0, result.text
    assert "tagged" in result.out
    commits = {line.partition(" ")[2]: line[:7] for line in shop.git("log", "--format=%H %s").splitlines()}
    assert shop.git("cat-file", "-t", "v0.1.0") == "tag\n"
    assert shop.git("rev-parse", "v0.1.0^{commit}") == shop.git("rev-parse", "HEAD")
    assert shop.git("tag", "--list", "--format=%(contents)", "v0.1.0") == (
        "shop 0.1.0\n\n"
        f"### Features\n\n- **web:** greet by name ({commits['feat(web): greet by name']})\n\n"
        f"### Other changes\n\n- start ({commits['start']})\n\n"
    )
    assert shop.lyra("release.version").out == "0.1.0  (on tag v0.1.0)\n"


def test_the_next_release_holds_what_came_after_the_last_and_shows_what_decided(shop: Project) -> None:
    shop.git("tag", "v1.2.3")
    shop.commit("fix!: another port")
    shop.commit("feat: more")
    result = shop.lyra("release", "--bump", "auto")
    assert result.code == 0, result.text
    assert "release 2.0.0 after 1.2.3: tag v2.0.0" in result.out
    assert "(major, something breaks)" in result.out
    assert f"  {shop.git('rev-parse', 'HEAD~')[:7]} fix!: another port" in result.out.splitlines()
    assert "start" not in shop.git("tag", "--list", "--format=%(contents)", "v2.0.0")


def test_a_dry_run_shows_plan_and_problems_and_tags_nothing(shop: Project) -> None:
    planned = shop.lyra("release", "--dry-run", "--json")
    assert planned.code == 0, planned.text
    document = json.loads(planned.out)
    assert (document["version"], document["tag"], document["problems"]) == ("0.1.0", "v0.1.0", [])
    (shop.root / "new").write_text("x")
    assert refused(shop.lyra("release", "--dry-run")) == ["tree: not committed: new; commit or ignore them"]
    assert tags(shop) == []


def test_a_tested_pre_release_becomes_the_release_on_the_same_commit(shop: Project) -> None:
    assert shop.lyra("release", "--pre", "rc").code == 0
    assert refused(shop.lyra("release", "--pre", "rc"))[0].endswith("is 0.1.0-rc.1 already; commit something first")
    assert shop.lyra("release").code == 0
    assert tags(shop) == ["v0.1.0", "v0.1.0-rc.1"]
    assert shop.lyra("release.version").out.startswith("0.1.0 ")


def test_everything_that_stands_against_a_release_is_told_at_once(shop: Project) -> None:
    shop.git("tag", "v1.0.0")
    shop.git("switch", "--quiet", "--create", "side")
    shop.git("config", "user.useConfigOnly", "true")
    shop.git("config", "--unset", "user.email")
    (shop.root / "new").write_text("x")
    found = refused(shop.lyra("release", "--version", "1.0.0-dev.lock", "--push", "--changelog", "NEWS.md"))
    head = shop.git("rev-parse", "HEAD")[:7]
    assert found[:6] == [
        "tree: not committed: new; commit or ignore them",
        "branch: on the branch side; releases are made on main (release.branches)",
        f"commit: {head} is 1.0.0 already; commit something first",
        "version: 1.0.0-dev.lock is not above 1.0.0, the highest of the line 1.0; choose a higher one",
        "version: 1.0.0-dev.lock looks like a version between tags; use another word than dev",
        "tag: git takes no tag named v1.0.0-dev.lock; choose another version, or another release.tag",
    ]
    assert found[6].startswith("tagger: ")
    assert "user.email" in found[6]
    assert found[7:] == ["push: there is no remote to push to"]
    assert tags(shop) == ["v1.0.0"]


def test_in_the_middle_of_a_merge_nothing_is_released(shop: Project) -> None:
    shop.git("switch", "--quiet", "--create", "side")
    shop.commit("beside")
    shop.git("switch", "--quiet", "main")
    shop.commit("ahead")
    shop.git("merge", "--quiet", "--no-commit", "--strategy", "ours", "side")
    assert shop.git("status", "--porcelain") == "", "a merge that changes no file"
    told = ["tree: in the middle of a merge; git merge --continue, or --abort"]
    assert refused(shop.lyra("release")) == told
    assert tags(shop) == []
    shop.git("merge", "--abort")
    shop.git("revert", "--no-commit", "HEAD")
    assert refused(shop.lyra("release")) == [told[0].replace("merge", "revert")]
    shop.git("revert", "--abort")
    assert shop.lyra("release").code == 0


def test_many_changes_are_counted(shop: Project) -> None:
    for number in range(7):
        (shop.root / f"new{number}").write_text("x")
    (found,) = refused(shop.lyra("release"))
    assert found == "tree: not committed: new0, new1, new2, new3, new4 and 2 more; commit or ignore them"


@pytest.mark.parametrize(
    ("branches", "switch", "allowed"),
    [
        ('["main", "stable/*"]', ("--create", "stable/1.x"), True),
        ('["*"]', ("--detach",), True),
        ('["main"]', ("--detach",), False),
        ("[]", ("--create", "other"), False),
    ],
)
def test_releases_are_made_on_the_branches_that_are_allowed(
    shop: Project, branches: str, switch: tuple[str, ...], allowed: bool
) -> None:
    shop.replace(".lyra.toml", "[release]\n", f"[release]\nbranches = {branches}\n")
    shop.commit()
    shop.git("switch", "--quiet", *switch)
    result = shop.lyra("release")
    assert (result.code == 0) is allowed, result.text
    if not allowed:
        assert refused(result)[0].startswith("branch: on ")


def test_a_version_must_be_above_its_line_wherever_that_was_tagged(shop: Project) -> None:
    shop.git("tag", "v1.0.0")
    shop.git("switch", "--quiet", "--create", "elsewhere")
    shop.commit("another future")
    shop.git("tag", "v1.1.5")
    shop.git("tag", "v2.0.0")
    shop.git("switch", "--quiet", "main")
    shop.commit()
    (found,) = refused(shop.lyra("release", "--bump", "minor"))
    assert found == "version: 1.1.0 is not above 1.1.5, the highest of the line 1.1; choose a higher one"
    assert shop.lyra("release", "--bump", "patch").code == 0, "an old line goes on"
    shop.commit()
    (found,) = refused(shop.lyra("release", "--version", "0.9.0"))
    assert found == "version: 0.9.0 is not above 1.0.1, the highest of this history; choose a higher one"


def test_versions_that_no_place_can_hold_side_by_side_are_refused(shop: Project) -> None:
    assert shop.lyra("release", "--version", "1.0.0-RC.1").code == 0
    shop.commit()
    (found,) = refused(shop.lyra("release", "--version", "1.0.0-rc.1"))
    assert found == "version: 1.0.0-rc.1 differs from 1.0.0-RC.1 by upper and lower case alone; choose another"
    (found,) = refused(shop.lyra("release", "--version", "1.0.0-s" + "x" * 122))
    assert found == "version: 129 characters; an image tag has at most 128"


def test_an_untested_set_is_refused_where_tests_are_required(shop: Project) -> None:
    shop.replace(".lyra.toml", "require_tests = false", "require_tests = true")
    shop.commit()
    (found,) = refused(shop.lyra("release", DOCKER_HOST="unix:///nowhere/docker.sock"))
    assert found.startswith("tests: ")
    assert tags(shop) == []


def test_a_shallow_clone_says_that_its_version_may_be_wrong_and_is_not_released(shop: Project, tmp_path: Path) -> None:
    shop.git("tag", "v1.0.0")
    shop.commit()
    clone = Project(tmp_path / "clone", shop.environment)
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{shop.root}", clone.root], check=True)
    clone.git("config", "user.name", "Ada")
    clone.git("config", "user.email", "ada@example.org")
    told = clone.lyra("release.version")
    assert "this clone is shallow" in told.err
    assert "git fetch --unshallow --tags" in told.err
    assert "tree: the clone is shallow" in refused(clone.lyra("release"))[0]
    clone.git("fetch", "--quiet", "--unshallow", "--tags")
    assert clone.lyra("release.version").out.startswith("1.0.1-dev.1+g")


def test_a_prefix_keeps_the_projects_of_one_repository_apart(shop: Project) -> None:
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


def test_the_changelog_gets_a_section_and_the_tree_still_is_that_version_on_the_line(shop: Project) -> None:
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


def test_a_changelog_that_would_make_the_images_stale_is_refused(shop: Project) -> None:
    with (shop.root / ".lyra.toml").open("a") as file:
        file.write('[images.web]\ncontext = "."\n[services.web]\nimage = "web"\n')
    (shop.root / "Dockerfile").write_text("FROM scratch\n")
    (shop.root / ".dockerignore").write_text(".lyra\npromotion\n")
    shop.commit()
    (found,) = refused(shop.lyra("release", "--changelog", "NEWS.md"))
    assert found == "changelog: NEWS.md is in the build context of web; leave it out in .dockerignore"
    (shop.root / ".dockerignore").write_text(".lyra\npromotion\n*.md\n")
    shop.commit()
    assert shop.lyra("release", "--changelog", "NEWS.md").code == 0


def test_a_tag_that_git_will_not_make_leaves_nothing(shop: Project) -> None:
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


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
def test_the_tag_is_signed_where_git_is_set_up_to_sign(shop: Project, tmp_path: Path) -> None:
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
    """The remote that shop pushes to."""
    there = Project(tmp_path / "remote.git", shop.environment)
    subprocess.run(["git", "clone", "--quiet", "--bare", shop.root, there.root], check=True)
    shop.git("remote", "add", "origin", str(there.root))
    return there


def test_push_brings_the_tag_to_the_remote(shop: Project, remote: Project) -> None:
    assert shop.lyra("release").code == 0
    assert tags(remote) == []
    shop.commit()
    result = shop.lyra("release", "--push", "--json")
    assert result.code == 0, result.text
    assert json.loads(result.out)["pushed_to"] == "origin"
    assert tags(remote) == ["v0.1.1"]
    assert remote.git("rev-parse", "v0.1.1") == shop.git("rev-parse", "v0.1.1")


def test_a_remote_that_has_the_tag_or_is_not_there_is_told_before(shop: Project, remote: Project) -> None:
    remote.git("tag", "v0.1.0", "main")
    (found,) = refused(shop.lyra("release", "--push"))
    assert found == "push: the remote origin has the tag v0.1.0 already"
    shop.git("remote", "set-url", "origin", "/nowhere/remote.git")
    (found,) = refused(shop.lyra("release", "--push"))
    assert found.startswith("push: the remote origin cannot be asked; ")


def test_a_push_that_is_refused_takes_the_tag_back(shop: Project, remote: Project) -> None:
    (shop.root / "NEWS.md").write_text("# News\n")
    shop.commit()
    hook(remote.root, "pre-receive", "echo no releases on Fridays; exit 1")
    result = shop.lyra("release", "--push", "--changelog", "NEWS.md")
    assert result.code == 3, result.text
    assert "no releases on Fridays" in result.err
    assert tags(shop) == tags(remote) == []
    assert shop.git("status", "--porcelain") == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_push_leaves_no_tag(shop: Project, remote: Project, tmp_path: Path, number: int) -> None:
    hook(shop.root / ".git", "pre-push", f"touch {tmp_path}/pushing; sleep 5; exit 1")
    running = shop.start("release", "--push")
    wait_for(tmp_path / "pushing")
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, out + err
    assert tags(shop) == tags(remote) == []
    assert shop.lyra("release").code == 0, "and it can be made afterwards"


def test_a_push_that_was_taken_before_the_interruption_is_a_release(
    shop: Project, remote: Project, tmp_path: Path
) -> None:
    hook(remote.root, "post-receive", f"touch {tmp_path}/taken; sleep 5")
    running = shop.start("release", "--push")
    wait_for(tmp_path / "taken")
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, out + err
    assert "origin has taken v0.1.0: the release is made" in err
    assert tags(shop) == tags(remote) == ["v0.1.0"]


def paused_tagging(shop: Project, folder: Path) -> None:
    """Every git that is about to make a tag says so in the file `tagging`, and waits for the file `go`."""
    wait = f"touch {folder}/tagging; until [ -e {folder}/go ]; do sleep 0.05; done"
    hook(shop.root / ".git", "reference-transaction", f'if [ "$1" = prepared ]; then {wait}; fi')


def test_of_two_releases_at_once_one_wins_and_the_other_says_so(shop: Project, tmp_path: Path) -> None:
    paused_tagging(shop, tmp_path)
    first = shop.start("release", "--bump", "minor")
    wait_for(tmp_path / "tagging")
    second = shop.lyra("release", "--bump", "major")
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=20)
    assert first.returncode == 0, out + err
    assert second.code == 3
    assert f"the release of this checkout is in use by another process (pid {first.pid})" in second.err
    assert tags(shop) == ["v0.1.0"]


def test_two_checkouts_cannot_make_the_same_version(shop: Project, tmp_path: Path) -> None:
    """Another checkout of the repository has another lock, but the same tags: git lets one of them win."""
    shop.replace(".lyra.toml", "[release]\n", '[release]\nbranches = ["*"]\n')
    shop.commit()
    other = Project(tmp_path / "other", shop.environment)
    shop.git("worktree", "add", "--quiet", "--detach", str(other.root))
    paused_tagging(shop, tmp_path)
    first = shop.start("release")
    wait_for(tmp_path / "tagging")
    second = other.lyra("release")
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=20)
    assert first.returncode == 0, out + err
    assert second.code == 3
    assert "another process tags v0.1.0 at the same time" in second.err
    assert tags(shop) == ["v0.1.0"]
    assert shop.git("cat-file", "-t", "v0.1.0") == "tag\n"


def test_who_loses_takes_no_tag_back_that_another_made_even_of_the_same_words(shop: Project, tmp_path: Path) -> None:
    shop.replace(".lyra.toml", "[release]\n", '[release]\nbranches = ["*"]\n')
    shop.commit()
    other = Project(tmp_path / "other", shop.environment)
    shop.git("worktree", "add", "--quiet", "--detach", str(other.root))
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
    assert "another process tags v0.1.0 at the same time" in err
    assert tags(shop) == ["v0.1.0"]


def test_a_killed_release_leaves_no_tag_or_a_whole_one(shop: Project, tmp_path: Path) -> None:
    paused_tagging(shop, tmp_path)
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
    assert shop.lyra("release.version").out == "0.1.0  (on tag v0.1.0)\n", "git alone went on, and made the whole tag"


def test_tagged_versions_are_listed_highest_first(shop: Project) -> None:
    assert "nothing is released yet" in shop.lyra("release.list").out
    for name in ("v1.9.0", "v1.10.0", "v1.10.0-rc.1", "nightly"):
        shop.git("tag", name)
    rows = [line.split() for line in shop.lyra("release.list").out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1.10.0", "1.10.0-rc.1", "1.9.0"]
    assert all(row[2:] == [shop.git("rev-parse", "HEAD")[:7], "never", "promoted"] for row in rows)
    document = json.loads(shop.lyra("release.list", "--json").out)
    assert [each["bundle"] for each in document] == [None, None, None]


def test_a_version_is_told_with_its_forms_elsewhere(shop: Project) -> None:
    shop.git("tag", "v1.4.0-rc.1+b")
    document = json.loads(shop.lyra("release.version", "--json").out)
    forms = {key: document[key] for key in ("semver", "image_tag", "file_name", "pep440", "shallow")}
    assert forms == {
        "semver": "1.4.0-rc.1+b",
        "image_tag": "1.4.0-rc.1_b",
        "file_name": "1.4.0-rc.1__b",
        "pep440": "1.4.0rc1+b",
        "shallow": False,
    }
    assert shop.lyra("release.version", "--image-tag", "1.4.0-rc.1_b").out == "1.4.0-rc.1+b\n"
    assert shop.lyra("release.version", "--image-tag", "latest").code == 2
