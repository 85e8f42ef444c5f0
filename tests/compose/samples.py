"""Small Compose projects of the kinds that other people have, one text file each below `tests/projects/compose/`.

The text begins with what the project is about; a line `-- PATH --` begins a file of it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import COMPOSE_VARIABLES
from lyra_tasks.compose.plugin import ConfigQuestion, ask_config, find_plugin
from tests.conftest import PROJECTS

DIRECTORY = PROJECTS / "compose"
NEWEST = "newest-compose"
"""A project that Compose 2.26 refuses."""
NAMES = sorted({path.stem for path in DIRECTORY.glob("*.txt")} - {NEWEST})
COMPOSE_FILES = {
    "compose-elsewhere": ("docker/compose.yaml",),
    "directory-below": ("deploy/compose/docker-compose.yml",),
    "several-files": ("base.yaml", "extra.yaml"),
    "override-file": ("compose.yaml", "compose.override.yaml"),
    "reset-and-override": ("compose.yaml", "compose.override.yml"),
}
"""The files that Compose reads, where they are not the only one at the top."""


def write_sample(name: str, parent: Path) -> Path:
    """Write the files of a project to a git repository below `parent`, and return its directory."""
    root = parent / name
    parts = re.split(r"(?m)^-- (.+) --\n", (DIRECTORY / f"{name}.txt").read_text())
    for path, text in zip(parts[1::2], parts[2::2], strict=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def compose_files(name: str, root: Path) -> tuple[Path, ...]:
    """Return the Compose files of a project."""
    names = COMPOSE_FILES.get(name) or tuple(path.name for path in root.glob("*compose.y*ml"))
    return tuple(root / file for file in names)


def ask_compose(name: str, root: Path, profiles: tuple[str, ...]) -> dict[str, Any]:
    """Return what `docker compose config` says of a project, as somebody gets it who follows its README."""
    files = compose_files(name, root)
    required = root.parent / f"{name}.env"
    required.write_text("TAG=1\nMODE=1\n")
    for example in root.glob("*.example"):  # whoever starts the project copies them
        example.with_suffix("").write_text(example.read_text())
    values = [path for path in (root / ".env",) if path.is_file()]
    return ask_config(find_plugin(), ConfigQuestion(files, files[0].parent, "", profiles, (required, *values)))


def walk_keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield each key with a value, and each item, with its location."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), item
            yield from walk_keys(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index), item
            yield from walk_keys(item, (*path, index))


def unset_compose_variables() -> dict[str, str]:
    """Return the environment without the variables of Compose."""
    return {name: value for name, value in os.environ.items() if name not in COMPOSE_VARIABLES}
