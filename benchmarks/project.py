"""Projects to measure with, each in a folder of its own, on a private engine."""

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

from benchmarks.measure import Spent, plain_environment, spent
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian.mirror import host_architecture
from lyra_tasks.engine.objects.holder import build_holder_program
from lyra_tasks.paths import xdg_directory

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra"

_CONFIG = """\
schema = 1
project = { name = "measured" }
proxima = { max_image_size = "4g", cpus = 2, memory = "2g", min_engine = "20.10", platforms = ["linux/ARCHITECTURE"] }

[[tests]]
name = "it can be tested"
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
    """A git repository with a configuration, and the variables under which its words run."""

    root: Path
    environment: dict[str, str]

    def word(self, *words: str) -> Spent:
        """Run a word, all of it: from the start of Python to its end."""
        return spent([sys.executable, "-m", "lyra_tasks.tasks.program", *words], self.root, self.environment)

    def says(self, *words: str) -> str:
        """What a word prints."""
        command = [sys.executable, "-m", "lyra_tasks.tasks.program", *words]
        done = subprocess.run(command, cwd=self.root, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout


@contextmanager
def engine(folder: Path, store: sandbox.StoreKind) -> Iterator[sandbox.Sandbox]:
    """A private engine with the image store `store`, while the block runs."""
    try:
        yield sandbox.launch_sandbox(folder / "engine", cache=CACHE, store=store)
    finally:
        sandbox.shut_down_sandbox(folder / "engine", purge=True)


def project(folder: Path, box: sandbox.Sandbox, layers: dict[str, list[Path]]) -> Project:
    """A project with one image for each key of `layers`, made of one layer per folder; the first one is a service."""
    compileall.compile_dir(REPOSITORY / "lyra_tasks", quiet=1)  # as an installed package is
    root = folder / "project"
    root.mkdir(parents=True)
    names = list(layers)
    text = _CONFIG.replace("ARCHITECTURE", host_architecture()) + _SERVICE.replace("NAME", names[0])
    for name, sources in layers.items():
        text += _IMAGE.replace("NAME", name)
        _image(root / name, sources)
    (root / ".lyra.toml").write_text(text)
    (root / ".gitignore").write_text(".lyra/\npromotion/\n.benchmark.log\n*/layer*/\n")
    environment = {
        **plain_environment(), **box.environment(),
        "XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(CACHE.parent), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    for words in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("add", "--all"),
        ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "--message", "start"),
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    return Project(root, environment)


def _image(folder: Path, sources: list[Path]) -> None:
    folder.mkdir()
    (folder / "hold").write_bytes(build_holder_program(host_architecture()))
    (folder / "hold").chmod(0o755)
    copies = []
    for number, source in enumerate(sources):
        source.rename(folder / f"layer{number}")
        copies.append(f"COPY layer{number} /layer{number}\n")
    lines = ["FROM scratch\n", *copies, "COPY hold /hold\n", "USER 65534:65534\n", 'CMD ["/hold"]\n']
    (folder / "Dockerfile").write_text("".join(lines))


def real_files(into: Path, layers: int, size: int) -> list[Path]:
    """Folders with `size` bytes each of programs, libraries and documents that this machine has."""
    files = _installed()
    folders = []
    for number in range(layers):
        folder = into / f"files{number}"
        left = size
        while left > 0:
            source = next(files, None)
            if source is None:
                raise SystemExit(f"this machine has less than {layers * size} bytes below /usr to measure with")
            target = folder / source.relative_to("/usr")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            left -= target.stat().st_size
        folders.append(folder)
    return folders


def _installed() -> Iterator[Path]:
    """Files below /usr/bin, /usr/share and /usr/lib in turn, so that every layer has some of each kind."""
    sources = [_files(Path("/usr", name)) for name in ("bin", "share", "lib")]
    while sources:
        for source in list(sources):
            found = next(source, None)
            if found is None:
                sources.remove(source)
            else:
                yield found


def _files(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path
