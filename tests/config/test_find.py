"""Test which configuration file is found, and which files are refused before they are parsed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lyra_tasks.config.load import MAX_CONFIG_BYTES, load_config
from lyra_tasks.errors import ConfigurationError
from tests.config.conftest import MINIMAL, Project


def test_nearest_file_upwards_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(MINIMAL)
    subdirectory = root / "web" / "src"
    subdirectory.mkdir()
    (root.parent / ".lyra.toml").write_text("this one is further away")
    monkeypatch.chdir(subdirectory)
    loaded = load_config()
    assert loaded.file == root / ".lyra.toml"
    assert loaded.root == root


def test_problems_name_file_relative_to_working_directory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project("schema = 1\n")
    monkeypatch.chdir(root / "web")
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == ("../.lyra.toml:1: project.name: missing; it is required",)


def test_search_begins_at_start_directory(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config(root / "web").root == root


def test_lyra_config_names_file(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project("not read")
    other = tmp_path / "other"
    other.mkdir()
    (other / "second.toml").write_text(MINIMAL)
    monkeypatch.setenv("LYRA_CONFIG", "../other/second.toml")
    loaded = load_config()
    assert (loaded.file, loaded.root) == (other / "second.toml", other)


def test_lyra_config_with_missing_file_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(MINIMAL)
    monkeypatch.setenv("LYRA_CONFIG", "missing.toml")
    with pytest.raises(ConfigurationError, match=r"^LYRA_CONFIG names missing\.toml, which does not exist$"):
        load_config()


def test_missing_file_suggests_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LYRA_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match=r"^No \.lyra\.toml in ") as caught:
        load_config(tmp_path)
    assert caught.value.hint.startswith("`init` writes a .lyra.toml")


def test_deleted_working_directory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    deleted.rmdir()
    with pytest.raises(ConfigurationError, match="The working directory no longer exists"):
        load_config()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MINIMAL.encode("utf-16"), "Cannot read .lyra.toml: UTF-16, not UTF-8"),
        (b"\xef\xbb\xbf" + MINIMAL.encode(), "Cannot read .lyra.toml: begins with a byte order mark"),
        (b"schema = 1\n# caf\xe9\n", "Cannot read .lyra.toml: not valid UTF-8 (line 2)"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "Cannot read .lyra.toml: larger than 1 MiB"),
    ],
    ids=["UTF-16", "byte order mark", "Latin-1", "too large"],
)
def test_file_without_plain_text_is_refused(project: Project, content: bytes, message: str) -> None:
    (project("") / ".lyra.toml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.message == message


def test_file_of_maximum_size_is_read_quickly(project: Project) -> None:
    filler = "# a comment, 'with' \"quotes\" and [brackets]\n"
    text = MINIMAL + "description = '''" + "x'\n" * 10_000 + "'''\n"
    project(text + filler * ((MAX_CONFIG_BYTES - len(text)) // len(filler)))
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert len(caught.value.details) == 1


@pytest.mark.parametrize("kind", ["directory", "FIFO", "device"])
def test_irregular_file_is_refused(project: Project, kind: str) -> None:
    file = project("") / ".lyra.toml"
    file.unlink()
    if kind == "directory":
        file.mkdir()
    elif kind == "FIFO":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_config()


def test_dangling_link_is_refused(project: Project) -> None:
    file = project("") / ".lyra.toml"
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"^Cannot read \.lyra\.toml: No such file or directory$"):
        load_config()
