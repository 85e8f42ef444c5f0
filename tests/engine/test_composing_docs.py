"""Every example of docs/composing.md, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Project

PAGE = (REPOSITORY / "docs" / "composing.md").read_text()
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = 12


@pytest.fixture(scope="module")
def documented(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return the tiny project, for all examples one after the other.

    Git ignores their files, so that all of them build, test and promote the same commit: most results are cached.
    """
    project = make_tiny()
    (project.root / ".gitignore").write_text("/*\n!/.lyra.toml\n!/app\n")
    project.commit("ignore the files of examples")
    yield project
    project.clean()


def commands_of(section: str) -> list[str]:
    """Return the command lines of a section."""
    blocks = [match["text"] for match in BLOCK.finditer(section) if match["language"] == "console"]
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def test_page_has_examples() -> None:
    assert sum(len(commands_of(section)) for section in SECTIONS.values()) == COMMANDS


@pytest.mark.parametrize("title", SECTIONS)
def test_example_runs(documented: Project, title: str) -> None:
    for match in BLOCK.finditer(SECTIONS[title]):
        if match["file"]:
            (documented.root / match["file"]).write_text(match["text"])
    environment = documented.environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for command in commands_of(SECTIONS[title]):
        done = subprocess.run(
            command, shell=True, cwd=documented.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
