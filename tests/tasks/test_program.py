"""The program as a user runs it: tasks, usage errors, and the project's own `tasks.py`."""

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
from tests.forked import can_fork, run_forked

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
LYRA = [sys.executable, "-m", "lyra_tasks.tasks.program"]
INVOKE = [sys.executable, "-m", "invoke"]
MINIMAL = 'schema = 1\n[project]\nname = "small"\n'


def run(directory: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    # `./inv check`, which may run this test, sets LYRA_INV_HOME
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment = {**clean, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(directory / "state"), **more}
    if [*command[: len(LYRA)]] == LYRA and can_fork(environment):
        return subprocess.CompletedProcess(command, *run_forked(command[len(LYRA) :], directory, environment, 60))
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_version_is_the_package_version(tmp_path: Path) -> None:
    assert run(tmp_path, *LYRA, "--version").stdout.strip() == f"Lyra {lyra_tasks.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("builds",), "error: Unknown task 'builds'\nhint: Did you mean `lyra build`?\n"),
        (("zzzzz",), "error: Unknown task 'zzzzz'\nhint: Run `lyra --list` for all tasks\n"),
        (
            ("status", "zzzzz"),
            "hint: Run `lyra --list` for all tasks; `lyra --help status` shows what `status` takes\n",
        ),
        (("dev",), "error: `dev` is a group of tasks\nhint: Run one of them: `lyra dev.shell`, `lyra dev.exec`, "),
        (("dev.snyc",), "error: Unknown task 'dev.snyc'\nhint: Did you mean `lyra dev.sync`?\n"),
        (("dev.xyzzy",), "error: Unknown task 'dev.xyzzy'\nhint: The tasks of dev are `lyra dev.shell`, "),
        (("diff",), "error: `diff` needs BEFORE and AFTER\nhint: Write `lyra diff BEFORE AFTER`; "),
        (("diff", "1.0.0"), "error: `diff` needs AFTER\nhint: Write `lyra diff BEFORE AFTER`; "),
        (("build", "--imgae", "web"), "error: Unknown option '--imgae' of `build`\nhint: Did you mean --image? "),
        (("build", "--quick"), "error: Unknown option '--quick' of `build`\nhint: "),
        (("build", "--image"), "error: Option --image needs a value\nhint: Run `lyra --help build` for its options\n"),
        (("--lsit",), "error: Unknown option '--lsit'\nhint: Did you mean --list? "),
        (("--nonsense",), "error: Unknown option '--nonsense'\nhint: "),
    ],
)
def test_usage_error_exits_with_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(tmp_path, *LYRA, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_configuration_suggests_init(tmp_path: Path) -> None:
    result = run(tmp_path, *LYRA, "build")
    assert result.returncode == 2
    assert f"error: No .lyra.toml in {tmp_path}" in result.stderr
    assert "hint: `lyra init` writes a .lyra.toml" in result.stderr


@pytest.mark.parametrize(
    ("program", "environment", "name"),
    [(LYRA, {}, "lyra"), (LYRA, {"LYRA_INV_HOME": "."}, "./inv"), (INVOKE, {"LYRA_INV_HOME": "."}, "invoke")],
)
def test_hint_names_program_as_it_was_called(
    tmp_path: Path, program: list[str], environment: dict[str, str], name: str
) -> None:
    (tmp_path / "tasks.py").write_text("from lyra_tasks import namespace\n")
    result = run(tmp_path, *program, "build", **environment)
    assert (
        f"hint: `{name} init` writes a .lyra.toml from what is here; `{name} config.schema` describes" in result.stderr
    )


def test_invalid_home_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    result = run(tmp_path, "env", "HOME=/dev/null", *LYRA, "build")
    assert result.returncode == 3
    assert result.stderr.startswith("error: /dev/null/.invoke")
    assert "hint: Set HOME" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_task_and_option_has_help(tmp_path: Path) -> None:
    listed = run(tmp_path, *LYRA, "--list").stdout
    tasks = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {"build", "test", "promote", "clean", "verify", "engine.up", "config.show"} <= set(tasks)
    for task in tasks:
        text = run(tmp_path, *LYRA, task, "--help").stdout
        assert "Docstring:\n  none" not in text, task
        flags = [line.strip() for line in text.partition("Options:")[2].splitlines() if line.strip().startswith("-")]
        # a column of flags, a gap, a column of help texts
        assert flags and [flag for flag in flags if not re.search(r"\S {2,}\S", flag)] == [], task


def test_one_import_provides_all_tasks_to_invoke(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from lyra_tasks import namespace\n")
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    result = run(tmp_path, *INVOKE, "config.show")
    assert "project.name = small  (.lyra.toml:3)" in result.stdout.splitlines(), result.stderr


def test_collection_includes_project_tasks(tmp_path: Path) -> None:
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


def test_package_is_compiled_but_tasks_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from lyra_tasks import namespace\n")
    (tmp_path / ".lyra.toml").write_text(MINIMAL)
    bytecode = tmp_path / "bytecode"
    result = run(tmp_path, *LYRA, "config.show", PYTHONPYCACHEPREFIX=str(bytecode), PYTHONDONTWRITEBYTECODE="")
    assert result.returncode == 0, result.stderr
    names = {path.name.partition(".")[0] for path in bytecode.rglob("*.pyc")}
    assert {"models", "load"} <= names
    assert not list(bytecode.joinpath(*tmp_path.parts[1:]).glob("*.pyc"))


def test_documented_makefile_replacement_works(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "from-makefile.md").read_text()
    (tmp_path / "tasks.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    program = tmp_path / "rsync"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    arguments = ("docs", "--host", "example.org")
    for command in (INVOKE, LYRA):
        result = run(tmp_path, *command, *arguments, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert result.stdout == "--archive site/ example.org:site/\n"
    assert "docs" in run(tmp_path, *LYRA, "--list").stdout


def test_list_loads_no_heavy_module(tmp_path: Path) -> None:
    result = run(tmp_path, sys.executable, "-X", "importtime", "-m", "lyra_tasks.tasks.program", "--list")
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "invoke" in loaded
    assert loaded & {"docker", "python_on_whales", "pydantic", "rich", "requests", "isal"} == set()


@pytest.mark.parametrize("arguments", [("--list",), ("build", "--help")])
def test_list_fits_very_narrow_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 12, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.Popen([*LYRA, *arguments], cwd=tmp_path, env=environment, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    output = b""
    with suppress(OSError):  # how Linux reports that the other end is closed
        while data := os.read(end, 1 << 16):
            output += data
    os.close(end)
    assert done.communicate()[1] == b""
    assert done.returncode == 0
    assert b"promote" in output if "--list" in arguments else b"--no-cache" in output


def test_usage_error_is_wrapped_between_words(tmp_path: Path) -> None:
    end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "NO_COLOR": "1"}
    done = subprocess.Popen([*LYRA, "verify", "guestbook-0.1.0"], cwd=tmp_path, env=environment, stderr=terminal)
    os.close(terminal)
    assert done.wait(60) == 2
    lines = os.read(end, 1 << 16).decode().splitlines()
    os.close(end)
    assert lines[0] == "error: Unknown task 'guestbook-0.1.0'"
    assert len(lines) == 3 and max(map(len, lines)) <= 60, lines


def test_deleted_working_directory_is_reported(tmp_path: Path) -> None:
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    result = run(deleted, "sh", "-c", script, "sh", *LYRA, "status")
    assert result.returncode == 2
    assert result.stderr.startswith("error: The working directory no longer exists")


@pytest.mark.parametrize("arguments", [("--list",), ("config.schema",)])
def test_broken_pipe_exits_silently(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*LYRA, *arguments], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [("--list",), ("config.schema",)])
def test_full_disk_behind_stdout_is_reported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*LYRA, *arguments], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert b"Cannot write the output: no space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unconfigured_remote_engine_is_refused(tmp_path: Path) -> None:
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
    assert "The current Docker engine is on another machine (tcp://192.0.2.1:2375)" in result.stderr


def test_exit_handlers_of_others_are_called(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "import atexit\nfrom lyra_tasks import namespace\natexit.register(lambda: print('handler called'))\n"
    )
    assert run(tmp_path, "env", *LYRA, "--list").stdout.endswith("handler called\n")
