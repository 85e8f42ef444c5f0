"""The wrapper `inv` in a tiny project: the first use creates the environment, later ones only use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

INV = Path(__file__).parents[1] / "inv"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
PREPARING = "preparing .venv"

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

# Builds an editable install without downloads, so that these tests do not depend on an index.
BACKEND = """\
import os, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    info = "lyra_tasks-0.dist-info"
    requires = os.environ.get("STUB_REQUIRES", "")
    metadata = "Metadata-Version: 2.1\\nName: lyra-tasks\\nVersion: 0\\nProvides-Extra: lint\\n"
    with zipfile.ZipFile(os.path.join(directory, "lyra_tasks-0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("lyra_tasks.pth", os.getcwd() + "\\n")
        wheel.writestr(info + "/METADATA", metadata + (f"Requires-Dist: {requires}\\n" if requires else ""))
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "lyra_tasks-0-py3-none-any.whl"
"""

PROGRAM = """\
import json, os, sys

home = os.environ["LYRA_INV_HOME"]
print(json.dumps({"arguments": sys.argv[1:], "directory": os.getcwd(), "prefix": sys.prefix, "home": home}))
sys.exit(7 if "fail" in sys.argv else 0)
"""


def make_project(root: Path) -> Path:
    """Create a project with `inv` and a program that prints how it was called."""
    package = root / "lyra_tasks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    shutil.copy(INV, root / "inv")
    return root


def run(
    program: Path, *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        cwd=cwd or program.parent,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def printed(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def staging_directories(root: Path) -> list[Path]:
    return list(root.glob(".venv.[0-9]*"))


def path_without_python(directory: Path) -> str:
    """Return a PATH with the tools that a later use needs, and no Python."""
    directory.mkdir()
    for tool in ("cat", "cksum", "dirname", "readlink", "sh"):
        (directory / tool).symlink_to(shutil.which(tool) or tool)
    return str(directory)


@pytest.fixture(scope="module")
def first_uses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """Return a project in a directory with spaces, with the results of two first uses at once beside leftovers."""
    root = make_project(tmp_path_factory.mktemp("inv") / "a project; 'quoted'")
    (root / ".venv.4000000").mkdir()
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    with ThreadPoolExecutor(2) as pool:
        return root, list(pool.map(run, [root / "inv"] * 2))


@pytest.fixture
def project(first_uses: tuple[Path, list[subprocess.CompletedProcess[str]]]) -> Path:
    """Return the project after its first use."""
    return first_uses[0]


def test_concurrent_first_uses_create_one_venv(
    first_uses: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    root, results = first_uses
    assert [printed(result)["prefix"] for result in results] == [str(root / ".venv")] * 2
    assert [PREPARING in result.stderr for result in results].count(True) == 1
    assert not staging_directories(root)


def test_inv_passes_arguments_and_exit_code(project: Path) -> None:
    arguments = ["build", "--only", "two words", "", "*", "$HOME"]
    assert printed(run(project / "inv", *arguments))["arguments"] == arguments
    assert run(project / "inv", "fail").returncode == 7


def test_inv_keeps_working_directory_and_follows_links(project: Path, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(project / "inv")
    (tmp_path / "second").symlink_to("first")
    result = printed(run(tmp_path / "second", cwd=tmp_path))
    assert result["directory"] == str(tmp_path)
    assert result["prefix"] == str(project / ".venv")
    assert result["home"] == str(project)


def test_later_use_needs_only_venv_python(project: Path, tmp_path: Path) -> None:
    result = run(project / "inv", PATH=path_without_python(tmp_path / "bin"))
    assert printed(result)["prefix"] == str(project / ".venv")
    assert result.stderr == ""


def test_inv_ignores_modules_in_working_directory(project: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    printed(run(project / "inv", cwd=tmp_path))


def test_installed_scripts_work_after_rename(project: Path) -> None:
    result = subprocess.run([project / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True)
    assert str(project / ".venv") in result.stdout


def test_failed_renewal_exits_with_3_and_keeps_old_venv(project: Path) -> None:
    pyproject = project / "pyproject.toml"
    pyproject.write_text(PYPROJECT + "# changed\n")
    try:
        result = run(project / "inv", STUB_REQUIRES="no-such-distribution==1", PIP_NO_INDEX="1")
    finally:
        pyproject.write_text(PYPROJECT)
    assert result.returncode == 3
    assert result.stdout == ""
    assert "no-such-distribution" in result.stderr
    assert str(project / ".venv.setup/log") in result.stderr
    assert not staging_directories(project)
    assert run(project / "inv").stderr == ""


def test_venv_of_another_directory_is_not_used(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    result = run(moved / "inv", PATH=path_without_python(tmp_path / "bin"))
    assert result.returncode == 3, "the environment of another directory was used"


def test_interrupted_first_use_leaves_nothing(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    process = subprocess.Popen([root / "inv"], env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 30
    while not staging_directories(root) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert staging_directories(root)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not staging_directories(root)
    assert not (root / ".venv").exists()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="only for Debian and Ubuntu")
def test_missing_ensurepip_falls_back_to_debian_pip(tmp_path: Path) -> None:
    root = make_project(tmp_path / "a project")
    hide = tmp_path / "hide" / "sitecustomize.py"
    hide.parent.mkdir()
    hide.write_text("import sys\nsys.modules['ensurepip'] = None\n")
    result = run(root / "inv", PATH="/usr/bin:/bin", PYTHONPATH=str(hide.parent))
    assert printed(result)["prefix"] == str(root / ".venv")
    assert "python3-pip-whl" in (root / ".venv.setup/log").read_text()
    assert not (root / ".venv/bin/pip").exists(), "ensurepip was not hidden"


def test_missing_recent_python_is_reported(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    path = path_without_python(tmp_path / "bin")
    old = tmp_path / "bin" / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = run(root / "inv", PATH=path)
    assert result.returncode == 3
    assert "Python 3.11" in result.stderr
    assert not (root / ".venv").exists()
