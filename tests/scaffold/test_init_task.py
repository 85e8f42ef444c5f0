"""Test the command `init`: its output, the files that it keeps, and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def lyra(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(directory / ".state")}
    command = [sys.executable, "-P", "-W", "error", "-m", "lyra_tasks.tasks.program", *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\nEXPOSE 8080\n")
    return tmp_path


def file_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_init_prints_files_todos_and_next_command(project: Path) -> None:
    result = lyra(project, "init")
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        "wrote .lyra.toml\nwrote tasks.py\nwrote .dockerignore, with .git and .lyra and promotion in it"
        in result.stdout
    )
    assert ".lyra.toml:9: TODO: description" in result.stdout
    assert result.stdout.endswith("commit --message init`, then `lyra build test promote`\n")
    task_list = lyra(project, "--list")  # uses the tasks.py that it wrote
    assert "promote" in task_list.stdout


def test_next_command_begins_with_what_git_lacks(project: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=project, check=True)
    assert lyra(project, "init").stdout.endswith(
        "\nnext: `git add --all && git commit --message init`, then `lyra build test promote`\n"
    )
    subprocess.run([*git, "add", "--all"], cwd=project, check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "init"], cwd=project, check=True)
    (project / ".lyra.toml").unlink()
    assert lyra(project, "init").stdout.endswith("\nnext: `lyra build test promote`\n")


def test_init_with_existing_configuration_changes_nothing(project: Path) -> None:
    (project / ".lyra.toml").write_text("# mine\n")
    names_before = file_names(project)
    result = lyra(project, "init")
    assert result.returncode == 0
    assert ".lyra.toml already exists; nothing was written" in result.stdout
    assert "init --dry-run" in result.stdout
    assert file_names(project) == names_before
    assert (project / ".lyra.toml").read_text() == "# mine\n"


def test_dry_run_prints_files_and_writes_nothing(project: Path) -> None:
    result = lyra(project, "init", "--dry-run")
    assert result.returncode == 0
    assert "[services." in result.stdout
    assert file_names(project) == ["Dockerfile"]


def test_json_has_all_files_and_todos(project: Path) -> None:
    document = json.loads(lyra(project, "init", "--json").stdout)
    text = next(file["text"] for file in document["files"] if file["path"] == ".lyra.toml")
    assert tomllib.loads(text)["images"]
    assert [file["path"] for file in document["files"] if file["written"]] == [
        ".lyra.toml",
        "tasks.py",
        ".dockerignore",
    ]
    lines = text.splitlines()
    assert all(todo["text"] in lines[todo["line"] - 1] for todo in document["todos"])


def test_compose_option_that_names_no_file_is_named(project: Path) -> None:
    result = lyra(project, "init", "--compose", "gone.yaml")
    assert result.returncode == 2
    assert "error: --compose names gone.yaml, which is not a file" in result.stderr
    assert file_names(project) == ["Dockerfile"]


def test_init_without_dockerfile_and_compose_exits_with_3(tmp_path: Path) -> None:
    result = lyra(tmp_path, "init")
    assert result.returncode == 3
    assert "No Dockerfile and no Compose file" in result.stderr
    assert "hint:" in result.stderr
    assert file_names(tmp_path) == []
