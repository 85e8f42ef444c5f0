"""The program as it is called: words, usage errors, and what a project's own `tasks.py` may be."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

import lyra_tasks

REPOSITORY = Path(__file__).parents[2]
LYRA = [sys.executable, "-m", "lyra_tasks.tasks.program"]
INVOKE = [sys.executable, "-m", "invoke"]
MINIMAL = 'schema = 1\n[project]\nname = "small"\n'


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    # `./inv check` is itself a program that tells its children where it belongs
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment = {**clean, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(folder / "state"), **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert run(tmp_path, *LYRA, "--version").stdout.strip() == f"Lyra {lyra_tasks.__version__}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("biuld",), "No idea what 'biuld' is!\nhint: did you mean build? `--list` shows all words"),
        (("zzzzz",), "No idea what 'zzzzz' is!\nhint: `--list` shows all words"),
        (("build", "--quick"), "No idea what '--quick' is!"),
        (("--nonsense",), "No idea what '--nonsense' is!"),
    ],
)
def test_a_usage_error_ends_with_2_and_no_traceback(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = run(tmp_path, *LYRA, *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_configuration_the_error_says_what_to_write(tmp_path: Path) -> None:
    result = run(tmp_path, *LYRA, "build")
    assert result.returncode == 2
    assert f"error: no .lyra.toml in {tmp_path}" in result.stderr
    assert "hint: `init` writes a .lyra.toml" in result.stderr


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    result = run(tmp_path, "env", "HOME=/dev/null", *LYRA, "build")
    assert result.returncode == 3
    assert result.stderr.startswith("error: /dev/null/.invoke")
    assert "hint: set HOME" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_word_has_a_help_text_and_every_option_too(tmp_path: Path) -> None:
    listed = run(tmp_path, *LYRA, "--list").stdout
    words = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {"build", "test", "promote", "clean", "verify", "engine.up", "config.show"} <= set(words)
    for word in words:
        text = run(tmp_path, *LYRA, word, "--help").stdout
        assert "Docstring:\n  none" not in text, word
        flags = [line.strip() for line in text.partition("Options:")[2].splitlines() if line.strip().startswith("-")]
        # a column of flags, a gap, a column of texts
        assert flags and [each for each in flags if not re.search(r"\S {2,}\S", each)] == [], word


def test_a_tasks_file_of_one_import_has_all_words_in_plain_invoke(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from lyra_tasks import namespace\n")
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    shown = run(tmp_path, *INVOKE, "config.show")
    assert ["project.name", ".lyra.toml:3", "small"] in [line.split()[:3] for line in shown.stdout.splitlines()], (
        shown.stderr
    )


def test_a_projects_own_tasks_stand_beside_the_words(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "import lyra_tasks\n"
        "from invoke import Collection, task\n"
        "@task\n"
        "def mine(c):\n    '''My own.'''\n    print('mine was here')\n"
        "@task\n"
        "def other(c):\n    '''Another.'''\n    print('other was here')\n"
        "namespace = lyra_tasks.collection(mine, Collection('deep', other))\n"
    )
    for command in (INVOKE, LYRA):
        assert run(tmp_path, *command, "mine", "deep.other").stdout == "mine was here\nother was here\n"
        assert "promote" in run(tmp_path, *command, "--list").stdout


def test_what_the_words_import_is_compiled_once_and_a_projects_tasks_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from lyra_tasks import namespace\n")
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    kept = tmp_path / "kept"
    shown = run(tmp_path, *LYRA, "config.show", PYTHONPYCACHEPREFIX=str(kept), PYTHONDONTWRITEBYTECODE="")
    assert shown.returncode == 0, shown.stderr
    names = {path.name.partition(".")[0] for path in kept.rglob("*.pyc")}
    assert {"models", "load"} <= names
    assert not list(kept.joinpath(*tmp_path.parts[1:]).glob("*.pyc"))


def test_the_tasks_of_the_page_about_makefiles_run_as_they_are_written_there(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "from-makefile.md").read_text()
    (tmp_path / "tasks.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    program = tmp_path / "rsync"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    words = ("docs", "--host", "example.org")
    for command in (INVOKE, LYRA):
        found = run(tmp_path, *command, *words, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert found.stdout == "--archive site/ example.org:site/\n"
    assert "docs" in run(tmp_path, *LYRA, "--list").stdout


def test_listing_the_words_loads_nothing_of_weight(tmp_path: Path) -> None:
    result = run(tmp_path, sys.executable, "-X", "importtime", "-m", "lyra_tasks.tasks.program", "--list")
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "invoke" in loaded
    assert loaded & {"docker", "python_on_whales", "pydantic", "rich", "requests", "isal"} == set()


@pytest.mark.parametrize("words", [("--list",), ("build", "--help")])
def test_a_terminal_that_is_narrower_than_the_names_shows_all_of_them(tmp_path: Path, words: tuple[str, ...]) -> None:
    end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 12, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.Popen([*LYRA, *words], cwd=tmp_path, env=environment, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    seen = b""
    with suppress(OSError):  # how Linux tells that nobody has the other end any more
        while data := os.read(end, 1 << 16):
            seen += data
    os.close(end)
    assert done.communicate()[1] == b""
    assert done.returncode == 0
    assert b"promote" in seen if "--list" in words else b"--no-cache" in seen


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    result = run(gone, "sh", "-c", script, "sh", *LYRA, "status")
    assert result.returncode == 2
    assert result.stderr.startswith("error: the working directory no longer exists")


@pytest.mark.parametrize("words", [("--list",), ("config.schema",)])
def test_output_that_nobody_reads_any_more_ends_a_word_in_silence(tmp_path: Path, words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*LYRA, *words], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("words", [("--list",), ("config.schema",)])
def test_output_for_which_there_is_no_room_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*LYRA, *words], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert b"no space left to write" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_remote_engine_that_is_not_configured_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    result = subprocess.run(
        [*LYRA, "clean"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "XDG_STATE_HOME": str(tmp_path),
            "DOCKER_HOST": "tcp://192.0.2.1:2375",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert result.returncode == 3
    assert "the current Docker engine is on another machine (tcp://192.0.2.1:2375)" in result.stderr
