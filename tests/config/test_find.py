"""Which file is read, and what is refused before a byte of it is understood."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.discovery import MAX_CONFIG_BYTES
from lyra_tasks.config.load import load_config
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]
VALID = 'schema = 1\n[project]\nname = "guestbook"\n'


def test_the_nearest_file_above_the_working_directory_is_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(VALID)
    deep = root / "web" / "src"
    deep.mkdir()
    (root.parent / ".lyra.toml").write_text("this one is further away")
    monkeypatch.chdir(deep)
    loaded = load_config()
    assert loaded.file == root / ".lyra.toml"
    assert loaded.root == root


def test_problems_name_the_file_from_where_the_user_stands(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project("schema = 1\n")
    monkeypatch.chdir(root / "web")
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == ("../.lyra.toml:1: project.name: missing; it is required",)


def test_a_start_folder_can_be_given(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(VALID)
    monkeypatch.chdir(tmp_path)
    assert load_config(root / "web").root == root


def test_a_variable_names_the_file(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project("not read")
    other = tmp_path / "other"
    other.mkdir()
    (other / "second.toml").write_text(VALID)
    monkeypatch.setenv("LYRA_CONFIG", "../other/second.toml")
    loaded = load_config()
    assert (loaded.file, loaded.root) == (other / "second.toml", other)


def test_a_variable_that_names_nothing_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(VALID)
    monkeypatch.setenv("LYRA_CONFIG", "missing.toml")
    with pytest.raises(ConfigurationError, match=r"^LYRA_CONFIG names missing\.toml, which does not exist$"):
        load_config()


def test_without_a_file_the_hint_says_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LYRA_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match=r"^No \.lyra\.toml in ") as caught:
        load_config(tmp_path)
    assert caught.value.hint.startswith("`init` writes a .lyra.toml")


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="The working directory no longer exists"):
        load_config()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VALID.encode("utf-16"), "Cannot read .lyra.toml: UTF-16, not UTF-8"),
        (b"\xef\xbb\xbf" + VALID.encode(), "Cannot read .lyra.toml: begins with a byte order mark"),
        (b"schema = 1\n# caf\xe9\n", "Cannot read .lyra.toml: not valid UTF-8 (line 2)"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "Cannot read .lyra.toml: larger than 1 MiB"),
    ],
    ids=["UTF-16", "byte order mark", "Latin-1", "too large"],
)
def test_a_file_that_is_no_plain_text_is_refused(project: Project, content: bytes, message: str) -> None:
    (project("") / ".lyra.toml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.message == message


def test_a_file_of_the_largest_size_is_read_in_reasonable_time(project: Project) -> None:
    filler = "# a comment, 'with' \"quotes\" and [brackets]\n"
    text = VALID + "description = '''" + "x'\n" * 10_000 + "'''\n"
    project(text + filler * ((MAX_CONFIG_BYTES - len(text)) // len(filler)))
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert len(caught.value.details) == 1


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
def test_only_a_regular_file_is_read(project: Project, kind: str) -> None:
    file = project("") / ".lyra.toml"
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "FIFO":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_config()


def test_a_dangling_link_cannot_be_read(project: Project) -> None:
    file = project("") / ".lyra.toml"
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"^Cannot read \.lyra\.toml: No such file or directory$"):
        load_config()
