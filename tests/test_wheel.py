"""The wheel contains all data files, and works without this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked wheel, built from a copy, since a build leaves files behind."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    shutil.copytree(REPOSITORY / "lyra_tasks", source / "lyra_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        directory,
        source,
    ]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "unpacked")
    return directory / "unpacked"


def files(root: Path) -> set[str]:
    paths = {str(path.relative_to(root)) for path in (root / "lyra_tasks").rglob("*") if path.is_file()}
    return {path for path in paths if "__pycache__" not in path}


def test_wheel_has_exactly_the_package_files(unpacked: Path) -> None:
    assert files(unpacked) == files(REPOSITORY)
    assert {"lyra_tasks/py.typed", "lyra_tasks/bundle/receive.sh", "lyra_tasks/tasks/completion/lyra.bash"} <= files(
        unpacked
    )


def test_program_works_from_wheel_alone(unpacked: Path, tmp_path: Path) -> None:
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "lyra = lyra_tasks.__main__:main" in entry.read_text()
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\nEXPOSE 80\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment |= {"PYTHONPATH": str(unpacked), "XDG_STATE_HOME": str(tmp_path / "state")}
    # What `lyra` runs, and a check that the package is the wheel's
    program = (
        "import lyra_tasks, sys; from lyra_tasks.tasks.program import main\n"
        f"assert lyra_tasks.__file__.startswith({str(unpacked)!r})\n"
        "sys.argv[0] = 'lyra'; main()"
    )
    for arguments in (["--list"], ["init"], ["--print-completion-script", "bash"], ["config.show"]):
        command = [sys.executable, "-P", "-c", program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".lyra.toml").exists()
