"""Tests that nothing hides from git's HEAD what images and bundles are made from; no engine is needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults import refused

pytestmark = pytest.mark.slow

PAGE = "app/www/index.html"


@pytest.fixture
def tagged(lonely: Project) -> Project:
    """Return a project on the tag of a release."""
    lonely.git("tag", "v1.0.0")
    assert version(lonely) == "1.0.0"
    return lonely


def version(project: Project) -> str:
    outcome = project.lyra("release.version")
    assert outcome.code == 0, outcome.text
    return outcome.out.split()[0]


def is_snapshot(project: Project) -> bool:
    return ".dirty." in version(project)


def edit(project: Project) -> None:
    (project.root / PAGE).write_text("not committed")


def assume_unchanged(project: Project) -> None:
    project.git("update-index", "--assume-unchanged", PAGE)
    edit(project)


def skip_worktree(project: Project) -> None:
    project.git("update-index", "--skip-worktree", PAGE)
    edit(project)


def delete_skipped(project: Project) -> None:
    project.git("update-index", "--skip-worktree", PAGE)
    (project.root / PAGE).unlink()


def ignore_mode(project: Project) -> None:
    project.git("config", "core.fileMode", "false")
    (project.root / PAGE).chmod(0o755)


def special_bits(project: Project) -> None:
    (project.root / "app/bin/busybox").chmod(0o4755)


def ignore_stat(project: Project) -> None:
    project.git("config", "core.ignoreStat", "true")
    project.git("update-index", "--really-refresh")
    project.git("add", "--renormalize", PAGE)
    edit(project)


def keep_size_and_times(project: Project) -> None:
    page = project.root / PAGE
    project.git("config", "core.trustctime", "false")
    project.git("config", "core.checkStat", "minimal")
    os.utime(page, (1_600_000_000, 1_600_000_000))
    project.git("update-index", "--refresh")
    page.write_text(page.read_text().swapcase())
    os.utime(page, (1_600_000_000, 1_600_000_000))


def monitored(project: Project) -> None:
    hook = project.root / ".git/hooks/nothing-changed"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nprintf 'token\\0'\n")
    hook.chmod(0o755)
    project.git("config", "core.fsmonitor", str(hook))
    project.git("update-index", "--fsmonitor")
    project.git("status")
    edit(project)


def sparse_checkout(project: Project) -> None:
    project.git("sparse-checkout", "set", "--no-cone", "/*", f"!/{PAGE}")
    assert not (project.root / PAGE).exists()


def replaced_commit(project: Project) -> None:
    head = project.git("rev-parse", "HEAD").strip()
    edit(project)
    project.commit()
    changed = project.git("rev-parse", "HEAD").strip()
    project.git("update-ref", "refs/heads/main", head)
    project.git("replace", head, changed)
    project.git("read-tree", "HEAD")


def clean_filter(project: Project) -> None:
    project.git("config", "filter.hide.clean", f"git cat-file blob HEAD:{PAGE}")
    (project.root / ".git/info").mkdir(exist_ok=True)
    (project.root / ".git/info/attributes").write_text(f"{PAGE} filter=hide\n")
    edit(project)
    project.git("add", PAGE)


def line_ends(project: Project) -> None:
    page = project.root / PAGE
    project.git("config", "core.autocrlf", "input")
    page.write_bytes(page.read_bytes().replace(b"\n", b"\r\n") + b"\r\n" * (b"\n" not in page.read_bytes()))


def excluded_by_the_clone(project: Project) -> None:
    with (project.root / ".git/info/exclude").open("a") as file:
        file.write("secret.html\n")
    (project.root / "app/www/secret.html").write_text("x")


def ignored(project: Project) -> None:
    (project.root / "app/www/.gitignore").write_text("local.html\n")
    project.commit()
    project.git("tag", "--force", "v1.0.0")
    (project.root / "app/www/local.html").write_text("x")


def empty_directory(project: Project) -> None:
    (project.root / "app/www/empty").mkdir()


@pytest.mark.parametrize(
    "hide",
    [
        assume_unchanged, skip_worktree, delete_skipped, ignore_mode, special_bits, ignore_stat, keep_size_and_times,
        monitored, sparse_checkout, replaced_commit, clean_filter, excluded_by_the_clone, ignored, empty_directory,
    ],
)  # fmt: skip
def test_change_that_git_does_not_see_makes_a_snapshot(tagged: Project, hide: Callable[[Project], None]) -> None:
    hide(tagged)
    assert tagged.git("status", "--porcelain") == "" or hide in {replaced_commit, ignore_stat, keep_size_and_times}
    assert is_snapshot(tagged)


def test_converted_line_ends_make_a_snapshot(tagged: Project) -> None:
    (tagged.root / PAGE).write_bytes(b"one\ntwo\n")
    tagged.commit()
    tagged.git("tag", "--force", "v1.0.0")
    line_ends(tagged)
    tagged.git("add", PAGE)
    assert tagged.git("status", "--porcelain") == ""
    assert is_snapshot(tagged)


def test_other_index_and_environment_hide_nothing(tagged: Project, tmp_path: Path) -> None:
    edit(tagged)
    index = tmp_path / "index"
    index.write_bytes((tagged.root / ".git/index").read_bytes())
    environment = {**tagged.environment, "GIT_INDEX_FILE": str(index), "GIT_LITERAL_PATHSPECS": "1"}
    assert is_snapshot(Project(tagged.root, environment))


def test_other_working_tree_is_refused(tagged: Project, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    tagged.git("worktree", "add", "--quiet", "--detach", str(copy))
    tagged.git("config", "core.worktree", str(copy))
    refused(tagged.lyra("release.version"), 3, f"git takes {copy} for the working tree", "config --unset core.worktree")


def test_committed_files_of_any_kind_are_a_release(tagged: Project) -> None:
    for name, text in {"ü\n": "x", "-x": "x", "run": "#!/bin/sh\n", ".gitattributes": "*.crlf text eol=lf\n"}.items():
        (tagged.root / "app/www" / name).write_text(text)
    (tagged.root / "app/www/run").chmod(0o755)
    (tagged.root / "app/www/link").symlink_to("run")
    (tagged.root / PAGE).chmod(0o600)
    (tagged.root / "app/big").write_bytes(os.urandom(400_000))
    tagged.commit()
    tagged.git("tag", "--force", "v1.0.0")
    assert version(tagged) == "1.0.0"


def test_file_in_lfs_is_compared_with_its_pointer(tagged: Project) -> None:
    content = os.urandom(1000)
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
    )
    (tagged.root / "pointer").write_text(pointer)
    tagged.git("config", "filter.lfs.clean", f"cat {tagged.root}/.git/pointer")
    (tagged.root / "pointer").rename(tagged.root / ".git/pointer")
    (tagged.root / ".gitattributes").write_text("*.bin filter=lfs\n")
    (tagged.root / "app/www/model.bin").write_bytes(content)
    tagged.commit()
    tagged.git("tag", "--force", "v1.0.0")
    assert version(tagged) == "1.0.0"
    (tagged.root / "app/www/model.bin").write_bytes(content[::-1])
    assert is_snapshot(tagged)


def test_file_of_a_submodule_is_compared_with_its_commit(tagged: Project, tmp_path: Path) -> None:
    origin = Project(tmp_path / "lib", tagged.environment)
    origin.root.mkdir()
    origin.git("init", "--quiet")
    (origin.root / "file").write_text("x")
    for key, value in {"user.name": "Ada", "user.email": "ada@example.org"}.items():
        origin.git("config", key, value)
    origin.commit()
    tagged.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(origin.root), "app/lib")
    tagged.commit()
    tagged.git("tag", "--force", "v1.0.0")
    assert version(tagged) == "1.0.0"
    inner = Project(tagged.root / "app/lib", tagged.environment)
    inner.git("update-index", "--assume-unchanged", "file")
    (inner.root / "file").write_text("y")
    assert tagged.git("status", "--porcelain") == ""
    assert is_snapshot(tagged)


def test_config_of_a_service_is_an_input(tagged: Project) -> None:
    tagged.git("update-index", "--assume-unchanged", "app/motd.txt", ".lyra.toml")
    with (tagged.root / ".lyra.toml").open("a") as file:
        file.write("# more\n")
    assert is_snapshot(tagged)


def test_deviation_allows_ignored_files_but_no_change(tagged: Project) -> None:
    ignored(tagged)
    deviation = (
        '[[deviations]]\nrule = "source.committed"\nscope = "source"\nreason = "generated"\nowner = "ada"\nexpires = '
    )
    config = tagged.root / ".lyra.toml"
    text = config.read_text()
    for expires, expected in (("2999-01-01", False), ("2020-01-01", True)):
        config.write_text(f"{text}\n{deviation}{expires}\n")
        tagged.commit()
        tagged.git("tag", "--force", "v1.0.0")
        assert is_snapshot(tagged) == expected
    config.write_text(f"{text}\n{deviation}2999-01-01\n")
    tagged.commit()
    assume_unchanged(tagged)
    assert is_snapshot(tagged)


def test_release_names_ignored_files(lonely: Project) -> None:
    (lonely.root / ".git/info/exclude").write_text("local.html\n")
    (lonely.root / "app/www/local.html").write_text("x")
    with (lonely.root / ".lyra.toml").open("a") as file:
        file.write("\n[release]\nrequire_tests = false\n")
    lonely.commit()
    refused(lonely.lyra("release"), 3, "tree: in an image, but not as git has it: app/www/local.html")
