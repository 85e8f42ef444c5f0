"""`promote`, `bundle.pack` and `verify` of a 700 MB image, against `docker save` and `sha256sum`."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from benchmarks.measure import Row, Spent, in_turn, row, shell
from benchmarks.project import Project, engine, project, real_files
from lyra_tasks.engine.sandbox import StoreKind

LAYERS = 4
LAYER = 175_000_000
TIMES = 5
MEMORY = 120 * 1024**2
BESIDE = 64 * 1024


def rows() -> Iterator[Row]:
    """The rows of both image stores."""
    stores: tuple[StoreKind, ...] = ("containerd", "graph")
    for store in stores:
        with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), store) as box:
            folder = Path(name)
            measured = project(folder, box, {"big": real_files(folder / "files", LAYERS, LAYER)})
            # a cache of its own, so that the first promotion is one
            cached = measured.environment | {"XDG_CACHE_HOME": str(folder / "cache")}
            yield from _rows("classic" if store == "graph" else store, replace(measured, environment=cached))


def _rows(store: str, measured: Project) -> Iterator[Row]:
    dockerfile = measured.root / "big" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("COPY hold /hold\n", "COPY hold /hold\nCOPY small /small\n"))
    numbers = count()
    _change(measured, next(numbers))
    reference = measured.says("build").split()[0]

    def run(script: str) -> Spent:
        return shell(script, measured.root, measured.environment)

    def first() -> Spent:
        for place in (measured.root / "promotion", Path(measured.environment["XDG_CACHE_HOME"])):
            shutil.rmtree(place, ignore_errors=True)
        return measured.word("promote")

    def changed() -> Spent:
        _change(measured, next(numbers))
        return measured.word("promote")

    found = in_turn(
        TIMES,
        gzip=lambda: run(f"docker save {reference} | gzip > save.tar.gz; rm save.tar.gz"),
        first=first,
        changed=changed,
        save=lambda: run(f"docker save {reference} > /dev/null"),
        verify=lambda: measured.word("verify"),
        sums=lambda: run("cd $(ls -d promotion/*/0* | tail -n 1); sha256sum --check --quiet SHA256SUMS"),
    )
    ours, verify = found["first"], found["verify"]
    if store == "classic":  # a containerd store saves what is compressed already
        yield row(f"promote, {store} store", ours, "docker save | gzip", found["gzip"], 0.25)
    yield row(f"promote, {store} store", ours, "docker save > /dev/null", found["save"], 2.0)
    goal = 1.0 if store == "classic" else 0.15
    yield row(f"promote, small change, {store} store", found["changed"], "the first promote", ours, goal)
    yield Row(f"promote, {store} store", "120 MiB", ours.memory, MEMORY, 1.0, unit="B")
    yield row(f"verify, {store} store", verify, "sha256sum --check", found["sums"], 1.2)
    yield Row(f"verify, {store} store", "120 MiB", verify.memory, MEMORY, 1.0, unit="B")
    yield _pack(store, measured)


def _change(measured: Project, number: int) -> None:
    """One small layer that is another one, built and tested."""
    (measured.root / "big" / "small").write_text(f"{number}\n" * 1000)
    for words in (("add", "--all"), ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=measured.root, check=True)
    measured.word("build", "test")


def _pack(store: str, measured: Project) -> Row:
    """The newest version since the one before it: all that travels, against the changed layers."""
    new, old = (each["version"] for each in json.loads(measured.says("bundle.list", "--json"))["versions"][:2])
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as medium:
        said = json.loads(measured.says("bundle.pack", new, "--since", old, "--to", medium, "--json"))
    (image,) = json.loads((measured.root / "promotion/measured" / new / "manifest.json").read_text())["images"]
    layers = sum(each["size"] for each in image["layers"] if each["digest"] not in said["images"][0]["without"])
    what = f"pack since the version before, {store} store"
    return Row(what, "changed layers and 64 KiB", said["size"], layers + BESIDE, 1.0, unit="B")
