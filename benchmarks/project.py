"""Benchmark projects, each in its own directory and with its own private engine."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Measurement, measure, plain_environment
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian.mirror import host_architecture
from lyra_tasks.engine.objects.holder import build_holder_program
from lyra_tasks.paths import xdg_directory

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra"

_CONFIG = """\
schema = 1
project = { name = "sample" }
proxima = { max_image_size = "4g", cpus = 2, memory = "2g", min_engine = "20.10", platforms = ["linux/ARCHITECTURE"] }

[[tests]]
name = "nothing"
run = ["true"]
"""
_IMAGE = """
[images.NAME]
context = "NAME"
"""
_SERVICE = """
[services.NAME]
image = "NAME"
limits = { cpus = 0.1, memory = "16m", pids = 8, disk = "1m" }
"""


@dataclass(frozen=True)
class Project:
    """A git repository with a configuration, and the environment of its commands."""

    root: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> Measurement:
        """Run and measure a command, with the start of Python."""
        return measure([sys.executable, "-m", "lyra_tasks.tasks.program", *arguments], self.root, self.environment)

    def output(self, *arguments: str) -> str:
        """Run a command and return its output."""
        command = [sys.executable, "-m", "lyra_tasks.tasks.program", *arguments]
        result = subprocess.run(
            command, cwd=self.root, env=self.environment, check=True, capture_output=True, text=True
        )
        return result.stdout


@contextmanager
def start_engine(directory: Path, store: sandbox.StoreKind) -> Iterator[sandbox.Sandbox]:
    """Run a private engine with this image store while the block runs."""
    try:
        yield sandbox.launch_sandbox(directory / "engine", cache=CACHE, store=store)
    finally:
        sandbox.shut_down_sandbox(directory / "engine", purge=True)


def create_project(directory: Path, box: sandbox.Sandbox | None, layers: dict[str, list[Path]]) -> Project:
    """Create a project with one image for each key of `layers`, with a layer per directory; the first is a service.

    Without `box`, it has to start an engine of its own.
    """
    root = directory / "project"
    root.mkdir(parents=True)
    names = list(layers)
    text = _CONFIG.replace("ARCHITECTURE", host_architecture()) + _SERVICE.replace("NAME", names[0])
    for name, sources in layers.items():
        text += _IMAGE.replace("NAME", name)
        _write_image(root / name, sources)
    (root / ".lyra.toml").write_text(text)
    (root / ".gitignore").write_text(".lyra/\npromotion/\n.benchmark.log\n*/layer*/\n")
    return _start_repository(root, box)


def copy_demo(directory: Path, box: sandbox.Sandbox) -> Project:
    """Copy the project that this repository demonstrates."""
    root = directory / "demo"
    root.mkdir(parents=True)
    shutil.copytree(REPOSITORY / "dockerfiles", root / "dockerfiles", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / ".lyra.toml", root)
    (root / ".gitignore").write_text(".lyra/\npromotion/\n.benchmark.log\n")
    return _start_repository(root, box)


def commit_all(root: Path) -> None:
    """Commit the files of a project."""
    for arguments in (
        ("add", "--all"),
        ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "--message", "change"),
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)


def _start_repository(root: Path, box: sandbox.Sandbox | None) -> Project:
    compileall.compile_dir(REPOSITORY / "lyra_tasks", quiet=1)  # as in an installed package
    environment = {
        **plain_environment(), **(box.environment() if box is not None else {}),
        "XDG_STATE_HOME": str(root.parent / "state"), "XDG_CACHE_HOME": str(CACHE.parent),
        "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=root, check=True)
    commit_all(root)
    return Project(root, environment)


def _write_image(directory: Path, sources: list[Path]) -> None:
    directory.mkdir()
    (directory / "hold").write_bytes(build_holder_program(host_architecture()))
    (directory / "hold").chmod(0o755)
    copies = []
    for number, source in enumerate(sources):
        source.rename(directory / f"layer{number}")
        copies.append(f"COPY layer{number} /layer{number}\n")
    lines = ["FROM scratch\n", *copies, "COPY hold /hold\n", "USER 65534:65534\n", 'CMD ["/hold"]\n']
    (directory / "Dockerfile").write_text("".join(lines))


def copy_installed_files(into: Path, layers: int, size: int) -> list[Path]:
    """Create directories with `size` bytes each of this machine's programs, libraries and documents."""
    files = _installed_files()
    directories = []
    for number in range(layers):
        directory = into / f"files{number}"
        remaining = size
        while remaining > 0:
            source = next(files, None)
            if source is None:
                raise SystemExit(f"Not enough files below /usr: {layers * size} bytes needed")
            target = directory / source.relative_to("/usr")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            remaining -= target.stat().st_size
        directories.append(directory)
    return directories


def _installed_files() -> Iterator[Path]:
    """Yield files below /usr/bin, /usr/share and /usr/lib in turn, so that every layer has some of each kind."""
    sources = [_readable_files(Path("/usr", name)) for name in ("bin", "share", "lib")]
    while sources:
        for source in list(sources):
            file = next(source, None)
            if file is None:
                sources.remove(source)
            else:
                yield file


def _readable_files(root: Path) -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path
