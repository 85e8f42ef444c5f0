"""The oldest Invoke that pyproject.toml allows, and the one that fabric brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def run_own_tasks(packages: Path, requirements: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a project's own tasks with other packages."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages)]
    subprocess.run([*pip, *requirements], check=True, capture_output=True)
    version = [sys.executable, "-c", "import invoke; print(invoke.__version__)"]
    environment = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{REPOSITORY}"}
    assert subprocess.run(version, env=environment, capture_output=True, text=True, check=True).stdout.startswith("2.")
    tests = ["tests/tasks/test_own_tasks.py", *options]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_own_task_finds_its_project_with_oldest_invoke(tmp_path: Path) -> None:
    selection = "use_the_invoke_of_the_tests or each_project_of_repository or (replaces_lyras_only_if_told and build)"
    done = run_own_tasks(tmp_path / "packages", ["invoke==2.2.0"], "-k", selection)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("requirements", [["invoke==2.2.0"], ["fabric>=3.2.3"]], ids=["oldest", "fabric"])
def test_tasks_work_with_other_invoke(tmp_path: Path, requirements: list[str]) -> None:
    done = run_own_tasks(tmp_path / "packages", requirements)
    assert done.returncode == 0, done.stdout


def test_tasks_work_in_fabfile(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path / "packages"), "fabric>=3.2.3"]
    subprocess.run(pip, check=True, capture_output=True)
    (tmp_path / "fabfile.py").write_text("from lyra_tasks import namespace\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'packages'}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-m", "fabric", "rules.list", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
