"""Peak memory of all commands with an image of 3 GB and with one of 200 layers, which are read as streams."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.project import create_project, start_engine
from lyra_tasks.engine.sandbox import StoreKind

IMAGE_BYTES = 3_000_000_000
LAYERS = 200
FILE_BYTES = 50_000_000
MAX_MEMORY_BYTES = 120 * 1024**2
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


def _measure_commands(directory: Path, kind: str, store: StoreKind, sizes: tuple[int, ...]) -> Iterator[Row]:
    with start_engine(directory, store) as box:
        files = directory / "files"
        sample = create_project(
            directory, box, {"big": [_create_files(files / str(number), size) for number, size in enumerate(sizes)]}
        )
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


def _create_files(directory: Path, size: int) -> Path:
    """Create a directory with `size` bytes in files, half of which is incompressible."""
    directory.mkdir(parents=True)
    for start in range(0, size, FILE_BYTES):
        length = min(FILE_BYTES, size - start)
        content = os.urandom(length // 2) + b"the same text over and over again. " * (length // 68)
        (directory / f"file{start}").write_bytes(content)
    return directory
