"""Shell completion: tasks, options and names of the project, quickly and without an engine."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lyra_tasks.scaffold.plan import plan_init
from lyra_tasks.scaffold.project_files import inspect_project
from lyra_tasks.scaffold.run import write_init_files
from tests.forked import run_forked
from tests.packages import unpacked

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
VERSION = "0.1.0-dev.3+g1a2b3c4"
CONFIGURATION = """
schema = 1
[project]
name = "small"
[images.web]
context = "."
[services.web]
image = "web"
[services.worker]
image = "redis:7"
[[tests]]
name = "the page is there"
service = "web"
log = "."
[[tests]]
name = "the door is shut"
service = "web"
log = "."
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a bundle and a run, and a directory `bin` with the program."""
    root = tmp_path_factory.mktemp("completion")
    (root / ".lyra.toml").write_text(CONFIGURATION)
    (root / "promotion" / "small" / VERSION).mkdir(parents=True)
    (root / "promotion" / "small" / VERSION / "manifest.json").write_text("{}")
    (root / ".lyra" / "runs" / "20261123t211504-3f9a1c").mkdir(parents=True)
    program = root / "bin" / "lyra"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m lyra_tasks.tasks.program "$@"\n')
    program.chmod(0o755)
    return root


def environment_of(project: Path) -> dict[str, str]:
    """Return the environment of a user whose programs and home are in the project."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    return {
        **clean, "PYTHONPATH": str(REPOSITORY), "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "HOME": str(project), "TERM": "dumb",
    }  # fmt: skip


def run(project: Path, *command: str) -> str:
    environment = environment_of(project)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def completions(project: Path, *typed: str) -> list[str]:
    code, out, err = run_forked(("--complete", "--", "lyra", *typed), project, environment_of(project), 60)
    assert (code, err) == (0, "")
    return out.splitlines()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("prom",), ["promote"]),
        (("build", "tes"), ["test"]),
        (("build", "--no"), ["--no-cache"]),
        (("build", "--image", ""), ["web"]),
        (("create", "-s", "w"), ["web", "worker"]),
        (("create", "--service=wo",), ["--service=worker"]),
        (("create", "--service", "=", "wo"), ["--service=worker"]),
        (("test", "--only", "the p"), ["the page is there"]),
        (("test", "--only", "the\\ d"), ["the door is shut"]),
        (("logs", "--run", ""), ["20261123t211504-3f9a1c"]),
        (("bundle.pack", "--since", ""), [VERSION]),
        (("bundle.rehearse", "0"), [VERSION]),
        (("bundle.rehearse", "--from", "0"), [VERSION]),
        (("bundle.rehearse", "--write", "the p"), ["the page is there"]),
        (("diff", "0"), [VERSION]),
        (("release", "--bump", "m"), ["major", "minor"]),
        (("verify", "pro"), [f"promotion/small/{VERSION}", "promote"]),
        (("dev.exec", "--", ""), []),
        (("release", "--changelog", ""), []),
    ],
)  # fmt: skip
def test_completion_offers_project_names(project: Path, typed: tuple[str, ...], expected: list[str]) -> None:
    assert completions(project, *typed) == expected


def test_completion_ignores_invalid_configuration(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "bin", tmp_path / "bin")
    (tmp_path / ".lyra.toml").write_text("schema = [")
    assert completions(tmp_path, "build", "--image", "") == []
    assert completions(tmp_path, "promo") == ["promote"]
    (tmp_path / ".lyra.toml").write_text("schema = 1\n")
    assert completions(tmp_path, "diff", "") == sorted(completions(tmp_path, ""))


def test_completion_knows_what_stands_in_the_compose_file(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "bin", tmp_path / "bin")
    shutil.copytree(project / "promotion" / "small", tmp_path / "promotion" / "inn")
    (tmp_path / "compose.yaml").write_text(
        "name: inn\nservices: {web: {build: .}, cache: {image: 'redis:7', user: '1'}}\n"
    )
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\n")
    write_init_files(plan_init(inspect_project(tmp_path)), tmp_path)
    assert completions(tmp_path, "logs", "--service", "") == ["web", "cache"]
    assert completions(tmp_path, "build", "--image", "") == ["web"]
    assert completions(tmp_path, "bundle.rehearse", "0") == [VERSION]


def test_completion_loads_no_heavy_module(project: Path) -> None:
    command = (sys.executable, "-P", "-X", "importtime", "-m", "lyra_tasks.tasks.program")
    words = ("--complete", "--", "lyra", "build", "--image", "")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, *words], cwd=project, env=environment, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "invoke" in loaded
    assert loaded & {"docker", "python_on_whales", "pydantic", "requests", "isal"} == set()
    before = os.times()
    run(project, "lyra", *words)
    after = os.times()
    # Processor time, since the wall clock says little on a busy machine
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3


def in_bash(project: Path, line: str) -> list[str]:
    """Return the completions of bash at the end of a line, which it has split itself."""
    text = (
        'eval "$(lyra --print-completion-script bash)"\n'
        f"COMP_WORDS=({line})\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "_lyra\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    return [line for line in run(project, "bash", "--norc", "-c", text).splitlines() if line]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lyra build --image ''", ["web"]),
        ("lyra create --service '=' wo", ["worker"]),
        ("lyra test --only '\"the p'", ['"the page is there"']),
        ("lyra test --only the", ["the\\ page\\ is\\ there", "the\\ door\\ is\\ shut"]),
        ("lyra prom", ["promote"]),
    ],
)
def test_bash_completes(project: Path, line: str, expected: list[str]) -> None:
    assert in_bash(project, line) == expected


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_every_shell_has_a_script(project: Path, shell: str) -> None:
    assert run(project, "lyra", "--print-completion-script", shell).startswith("# Completion for lyra")


def test_unsupported_shell_is_a_usage_error(project: Path) -> None:
    done = subprocess.run([project / "bin" / "lyra", "--print-completion-script", "tcsh"], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "Choose one of bash, fish, zsh" in done.stderr


@pytest.fixture(scope="module")
def fish(cache: Path) -> Path:
    return unpacked(cache, "fish", "fish-common", "libpcre2-32-0")


@pytest.fixture(scope="module")
def zsh(cache: Path) -> Path:
    return unpacked(cache, "zsh", "zsh-common", "libcap2", "libtinfo6")


@pytest.fixture(scope="module")
def zsh_home(tmp_path_factory: pytest.TempPathFactory, zsh: Path) -> Path:
    """Return a home directory where zsh finds its files and the completion script."""
    home = tmp_path_factory.mktemp("zsh")
    functions = f"{zsh}/usr/share/zsh/functions"
    (home / ".zshenv").write_text(
        f"module_path=({zsh}/usr/lib/*-linux-gnu/zsh/*(/))\nfpath=({functions} {functions}/**/*(/))\n"
    )
    (home / ".zshrc").write_text(
        "autoload -Uz compinit && compinit -u -D\neval \"$(lyra --print-completion-script zsh)\"\nPROMPT='ready> '\n"
    )
    return home


def test_fish_completes(project: Path, fish: Path) -> None:
    libraries = next(fish.glob("usr/lib/*-linux-gnu"))
    text = "lyra --print-completion-script fish | source; complete --do-complete 'lyra create --service w'"
    program = ["env", f"LD_LIBRARY_PATH={libraries}", str(fish / "usr/bin/fish"), "--no-config", "-c", text]
    assert run(project, *program).split() == ["web", "worker"]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("lyra prom", "lyra promote"),
        ("lyra create --service wo", "lyra create --service worker"),
        ("lyra test --only 'the p", "lyra test --only 'the page is there'"),
    ],
)
def test_zsh_completes(project: Path, zsh: Path, zsh_home: Path, typed: str, completed: str) -> None:
    controller, end = pty.openpty()
    environment = {
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "HOME": str(zsh_home),
        "ZDOTDIR": str(zsh_home), "TERM": "dumb", "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": ":".join(str(path) for path in zsh.glob("**/lib/*-linux-gnu")),
    }  # fmt: skip
    program = next(zsh.glob("**/bin/zsh"))  # of trixie's package it is only in /usr
    shell = subprocess.Popen([program, "-i"], cwd=project, env=environment, stdin=end, stdout=end,
                             stderr=end, start_new_session=True)  # fmt: skip
    os.close(end)
    try:
        until(controller, "ready> ")
        os.write(controller, f"{typed}\t".encode())
        assert completed in until(controller, completed)
    finally:
        shell.kill()
        shell.wait()
        os.close(controller)


def until(terminal: int, text: str) -> str:
    """Return what a terminal shows, once that contains `text`, or after 30 s."""
    output = b""
    deadline = time.monotonic() + 30
    while text.encode() not in output and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            output += os.read(terminal, 1 << 16)
    return output.decode()
