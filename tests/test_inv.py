"""The wrapper `inv`, run for real in a tiny project: a first use makes the environment, later uses only use it."""

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

INV = Path(__file__).parents[1] / "inv"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
PREPARING = "preparing .venv"

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

# Makes an editable install without any download, so that these tests are about `inv` and not about an index.
BACKEND = """\
import os, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    info = "lyra_tasks-0.dist-info"
    requires = os.environ.get("STUB_REQUIRES", "")
    metadata = "Metadata-Version: 2.1\\nName: lyra-tasks\\nVersion: 0\\nProvides-Extra: dev\\n"
    with zipfile.ZipFile(os.path.join(folder, "lyra_tasks-0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("lyra_tasks.pth", os.getcwd() + "\\n")
        wheel.writestr(info + "/METADATA", metadata + (f"Requires-Dist: {requires}\\n" if requires else ""))
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "lyra_tasks-0-py3-none-any.whl"
"""

PROGRAM = """\
import json, os, sys

home = os.environ["LYRA_INV_HOME"]
print(json.dumps({"words": sys.argv[1:], "folder": os.getcwd(), "prefix": sys.prefix, "home": home}))
sys.exit(7 if "fail" in sys.argv else 0)
"""


def make_project(root: Path) -> Path:
    """A project that has `inv`, and a program that tells how it was called."""
    package = root / "lyra_tasks" / "tasks"
    package.mkdir(parents=True)
    (root / "lyra_tasks" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "program.py").write_text(PROGRAM)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    shutil.copy(INV, root / "inv")
    return root


def run(program: Path, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        cwd=cwd or program.parent,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def asides(root: Path) -> list[Path]:
    return list(root.glob(".venv.[0-9]*"))


def tools_only(folder: Path) -> str:
    """A PATH that has what a later use may need, and no Python."""
    folder.mkdir()
    for tool in ("cat", "cksum", "dirname", "readlink", "sh"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return str(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a folder with spaces, after its first use."""
    root = make_project(tmp_path_factory.mktemp("inv") / "a project; 'quoted'")
    result = run(root / "inv")
    assert PREPARING in result.stderr
    assert Path(told(result)["prefix"]) == root / ".venv"
    assert not asides(root)
    return root


def test_words_and_exit_code_pass_through_unchanged(project: Path) -> None:
    words = ["build", "--only", "two words", "", "*", "$HOME"]
    assert told(run(project / "inv", *words))["words"] == words
    assert run(project / "inv", "fail").returncode == 7


def test_it_stays_in_the_callers_folder_and_is_found_through_a_link(project: Path, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(project / "inv")
    (tmp_path / "second").symlink_to("first")
    result = told(run(tmp_path / "second", cwd=tmp_path))
    assert result["folder"] == str(tmp_path)
    assert result["prefix"] == str(project / ".venv")
    assert result["home"] == str(project)


def test_later_uses_start_nothing_but_the_environments_own_python(project: Path, tmp_path: Path) -> None:
    result = run(project / "inv", PATH=tools_only(tmp_path / "bin"))
    assert told(result)["prefix"] == str(project / ".venv")
    assert result.stderr == ""


def test_a_file_of_the_callers_folder_does_not_stand_in_for_a_module(project: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    told(run(project / "inv", cwd=tmp_path))


def test_installed_scripts_work_after_the_rename(project: Path) -> None:
    result = subprocess.run([project / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True)
    assert str(project / ".venv") in result.stdout


def test_a_failed_renewal_is_a_precondition_and_leaves_the_old_environment(project: Path) -> None:
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
    assert not asides(project)
    assert run(project / "inv").stderr == ""


def test_two_first_uses_at_once_make_one_environment_and_clear_leftovers(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    (root / ".venv.4000000").mkdir()
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, [root / "inv"] * 2))
    assert [told(result)["prefix"] for result in both] == [str(root / ".venv")] * 2
    assert [PREPARING in result.stderr for result in both].count(True) == 1
    assert not asides(root)


def test_an_environment_that_points_to_another_folder_is_not_used(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    result = run(moved / "inv", PATH=tools_only(tmp_path / "bin"))
    assert result.returncode == 3, "it was used as it is; without a Python to renew it that cannot be right"


def test_an_interrupted_first_use_leaves_nothing(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    process = subprocess.Popen([root / "inv"], env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 30
    while not asides(root) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert asides(root)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not asides(root)
    assert not (root / ".venv").exists()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="this is Debian's and Ubuntu's way")
def test_without_ensurepip_debians_pip_is_run_from_an_unpacked_package(tmp_path: Path) -> None:
    root = make_project(tmp_path / "a project")
    hide = tmp_path / "hide" / "sitecustomize.py"
    hide.parent.mkdir()
    hide.write_text("import sys\nsys.modules['ensurepip'] = None\n")
    result = run(root / "inv", PATH="/usr/bin:/bin", PYTHONPATH=str(hide.parent))
    assert told(result)["prefix"] == str(root / ".venv")
    assert "python3-pip-whl" in (root / ".venv.setup/log").read_text()
    assert not (root / ".venv/bin/pip").exists(), "ensurepip was there after all"


def test_without_a_recent_python_it_says_so(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    path = tools_only(tmp_path / "bin")
    old = tmp_path / "bin" / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = run(root / "inv", PATH=path)
    assert result.returncode == 3
    assert "Python 3.11" in result.stderr
    assert not (root / ".venv").exists()
