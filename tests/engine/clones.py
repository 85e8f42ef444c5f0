"""Clone this repository, as a new user does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lyra_tasks.engine.sandbox import Sandbox
from tests.conftest import REPOSITORY, Project, environment_of


def clone(tmp_path: Path, cache: Path, box: Sandbox | None) -> Project:
    """Clone the commits of this repository into a project that runs its own code."""
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, root], check=True)
    return Project(root, environment_of(tmp_path, cache, box) | {"PYTHONPATH": str(root)})
