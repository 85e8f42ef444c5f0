"""Peak memory of commands, with an image of 3 GB, one of 200 layers, and a service that floods its log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.project import commit_all, copy_demo, create_project, start_engine
from lyra_tasks.engine.sandbox import StoreKind

IMAGE_BYTES = 3_000_000_000
LAYERS = 200
FILE_BYTES = 50_000_000
MAX_MEMORY_BYTES = 120 * 1024**2
_FLOOD = """
[services.flood]
image = "web"
command = ["python3", "-c", "while True: print('x' * 5000)"]
limits = { cpus = 0.5, memory = "64m", pids = 8, disk = "16m" }
healthcheck = { exec = ["true"] }
tmpfs = { "/data" = "1m" }

[services.flood.environment]
PYTHONDONTWRITEBYTECODE = { default = "1", description = "the root file system is read-only" }
PYTHONUNBUFFERED = { default = "1", description = "lines appear when they are written" }

[[tests]]
name = "time passes"
run = ["sleep", "20"]
timeout = "60s"
"""
_MANY_LAYERS = """
[[deviations]]
rule = "proxima.engine"
scope = "images.big"
reason = "Proxima's engine has a containerd store, like this one"
owner = "benchmarks"
expires = 2099-01-01
"""
COMMANDS = ("build", "test", "promote", "verify", "clean")


def measure_memory() -> Iterator[Row]:
    """Measure each command, image and store; a classic store has at most 127 layers."""
    for kind, store, sizes in (
        ("3 GB", "containerd", (IMAGE_BYTES // 4,) * 4),
        ("3 GB", "graph", (IMAGE_BYTES // 4,) * 4),
        (f"{LAYERS} layers", "containerd", (20_000,) * LAYERS),
    ):
        with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
            yield from _measure_commands(Path(name), kind, "graph" if store == "graph" else "containerd", sizes)
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
        yield _measure_flood(Path(name))


def _measure_commands(directory: Path, kind: str, store: StoreKind, sizes: tuple[int, ...]) -> Iterator[Row]:
    with start_engine(directory, store) as box:
        files = directory / "files"
        sample = create_project(
            directory, box, {"big": [_create_files(files / str(number), size) for number, size in enumerate(sizes)]}
        )
        if len(sizes) == LAYERS:
            with (sample.root / ".lyra.toml").open("a") as file:
                file.write(_MANY_LAYERS)
            commit_all(sample.root)
        store_name = "classic" if store == "graph" else store
        for command in COMMANDS:
            yield Row(
                f"{command}, {kind}, {store_name} store",
                "120 MiB",
                sample.run(command).memory,
                MAX_MEMORY_BYTES,
                1.0,
                unit="B",
            )


def _measure_flood(directory: Path) -> Row:
    """Measure `test` of the demo beside a service that writes as fast as it can."""
    with start_engine(directory, "containerd") as box:
        demo = copy_demo(directory, box)
        with (demo.root / ".lyra.toml").open("a") as file:
            file.write(_FLOOD)
        demo.run("build")
        memory = demo.run("test").memory
    return Row("test, a service that floods its log", "120 MiB", memory, MAX_MEMORY_BYTES, 1.0, unit="B")


def _create_files(directory: Path, size: int) -> Path:
    """Create a directory with `size` bytes in files, half of which is incompressible."""
    directory.mkdir(parents=True)
    for start in range(0, size, FILE_BYTES):
        length = min(FILE_BYTES, size - start)
        content = os.urandom(length // 2) + b"the same text over and over again. " * (length // 68)
        (directory / f"file{start}").write_bytes(content)
    return directory
