"""`init` as it is typed: what it says, what it leaves alone, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def lyra(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment = {**clean, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(folder / ".state")}
    command = [sys.executable, "-P", "-W", "error", "-m", "lyra_tasks.tasks.program", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\nEXPOSE 8080\n")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_says_what_it_wrote_what_is_open_and_what_is_next(project: Path) -> None:
    done = lyra(project, "init")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "wrote .lyra.toml\nwrote tasks.py\nwrote .dockerignore, with .git and .lyra and promotion in it" in done.stdout
    )
    assert ".lyra.toml:9: TODO: description" in done.stdout
    assert done.stdout.endswith("next: build test promote\n")
    listed = lyra(project, "--list")  # through the tasks.py that it wrote
    assert "promote" in listed.stdout


def test_with_a_configuration_there_already_it_changes_nothing_and_says_how_to_go_on(project: Path) -> None:
    (project / ".lyra.toml").write_text("# mine\n")
    before = names(project)
    done = lyra(project, "init")
    assert done.returncode == 0
    assert ".lyra.toml is there already: nothing was written" in done.stdout
    assert "init --dry-run" in done.stdout
    assert names(project) == before
    assert (project / ".lyra.toml").read_text() == "# mine\n"


def test_a_dry_run_prints_and_writes_nothing(project: Path) -> None:
    done = lyra(project, "init", "--dry-run")
    assert done.returncode == 0
    assert "[services." in done.stdout
    assert names(project) == ["Dockerfile"]


def test_json_is_one_document_with_every_file_and_every_open_point(project: Path) -> None:
    said = json.loads(lyra(project, "init", "--json").stdout)
    text = next(file["text"] for file in said["files"] if file["path"] == ".lyra.toml")
    assert tomllib.loads(text)["images"]
    assert [file["path"] for file in said["files"] if file["written"]] == [".lyra.toml", "tasks.py", ".dockerignore"]
    lines = text.splitlines()
    assert all(point["text"] in lines[point["line"] - 1] for point in said["todo"])


def test_without_anything_to_make_images_of_it_ends_with_3(tmp_path: Path) -> None:
    done = lyra(tmp_path, "init")
    assert done.returncode == 3
    assert "there is no Dockerfile and no compose file" in done.stderr
    assert "hint:" in done.stderr
    assert names(tmp_path) == []
