"""`promote` and `verify` of a 700 MB image, against `docker save` and `sha256sum`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, Spent, in_turn, shell
from benchmarks.project import Project, engine, project, real_files
from lyra_tasks.engine.sandbox import Store

LAYERS = 4
LAYER = 175_000_000
TIMES = 3
MEMORY = 120 * 1024**2


def rows() -> Iterator[Row]:
    """The rows of both image stores."""
    stores: tuple[Store, ...] = ("containerd", "graph")
    for store in stores:
        with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), store) as box:
            folder = Path(name)
            measured = project(folder, box, {"big": real_files(folder / "files", LAYERS, LAYER)})
            yield from _rows("classic" if store == "graph" else store, measured)


def _rows(store: str, measured: Project) -> Iterator[Row]:
    measured.word("build", "test")
    reference = measured.says("build").split()[0]

    def run(script: str) -> Spent:
        return shell(script, measured.root, measured.environment)

    def promote() -> Spent:
        shutil.rmtree(measured.root / "promotion", ignore_errors=True)
        return measured.word("promote")

    found = in_turn(
        TIMES,
        gzip=lambda: run(f"docker save {reference} | gzip > save.tar.gz; rm save.tar.gz"),
        promote=promote,
        save=lambda: run(f"docker save {reference} > /dev/null"),
        verify=lambda: measured.word("verify"),
        sums=lambda: run("cd promotion/*/0*; sha256sum --check --quiet SHA256SUMS"),
    )
    ours, verify = found["promote"], found["verify"]
    if store == "classic":  # a containerd store saves what is compressed already
        yield Row(f"promote, {store} store", "docker save | gzip", ours.seconds, found["gzip"].seconds, 0.25)
    yield Row(f"promote, {store} store", "docker save > /dev/null", ours.seconds, found["save"].seconds, 2.0)
    yield Row(f"promote, {store} store", "120 MiB", ours.memory, MEMORY, 1.0, unit="B")
    yield Row(f"verify, {store} store", "sha256sum --check", verify.seconds, found["sums"].seconds, 1.2)
    yield Row(f"verify, {store} store", "120 MiB", verify.memory, MEMORY, 1.0, unit="B")
