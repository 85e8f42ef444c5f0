"""A fresh clone of this repository: what a new user has."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lyra_tasks.engine.sandbox import Sandbox
from tests.conftest import REPOSITORY, Project, environment_of


def clone(tmp_path: Path, cache: Path, box: Sandbox | None) -> Project:
    """A clone of what is committed here, which runs its own program."""
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, root], check=True)
    return Project(root, environment_of(tmp_path, cache, box) | {"PYTHONPATH": str(root)})
