"""The memory of every word with an image of 3 GB, and with one of 200 layers: what is read is read as a stream."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.project import engine, project
from lyra_tasks.engine.sandbox import StoreKind

LARGE = 3_000_000_000
LAYERS = 200
FILE = 50_000_000
MOST = 120 * 1024**2
WORDS = ("build", "test", "promote", "verify", "clean")


def rows() -> Iterator[Row]:
    """One row per word, image and store; a classic store takes no more than 127 layers."""
    for what, store, folders in (
        ("3 GB", "containerd", (LARGE // 4,) * 4),
        ("3 GB", "graph", (LARGE // 4,) * 4),
        (f"{LAYERS} layers", "containerd", (20_000,) * LAYERS),
    ):
        with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
            yield from _words(Path(name), what, "graph" if store == "graph" else "containerd", folders)


def _words(folder: Path, what: str, store: StoreKind, sizes: tuple[int, ...]) -> Iterator[Row]:
    with engine(folder, store) as box:
        files = folder / "files"
        measured = project(folder, box, {"big": [_filled(files / str(each), size) for each, size in enumerate(sizes)]})
        kind = "classic" if store == "graph" else store
        for word in WORDS:
            yield Row(f"{word}, {what}, {kind} store", "120 MiB", measured.word(word).memory, MOST, 1.0, unit="B")


def _filled(folder: Path, size: int) -> Path:
    """A folder with `size` bytes in files, half of which cannot be compressed."""
    folder.mkdir(parents=True)
    for start in range(0, size, FILE):
        length = min(FILE, size - start)
        content = os.urandom(length // 2) + b"as much again that says the same. " * (length // 68)
        (folder / f"file{start}").write_bytes(content)
    return folder
