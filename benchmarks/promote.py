"""`promote`, `bundle.pack` and `verify` of 700 MB, as one image and as five, against `docker save` and `sha256sum`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from benchmarks.measure import Measurement, Row, create_row, measure_in_turn, measure_script
from benchmarks.project import Project, commit_all, copy_installed_files, create_project, start_engine
from lyra_tasks.engine.sandbox import StoreKind

LAYERS = 4
SET_IMAGES = 4
LAYER_BYTES = 175_000_000
ROUNDS = 5
MAX_MEMORY_BYTES = 120 * 1024**2
MAX_OVERHEAD_BYTES = 64 * 1024
MAX_SAVE_RATIO = {"containerd": 1.2, "classic": 1.8}
"""Of `docker save > /dev/null`; a containerd store saves compressed layers."""
MAX_CHANGE_RATIO = {"containerd": 0.35, "classic": 1.2}
"""Of `docker save` of the changed image to a file."""
MAX_GZIP_RATIO = 0.25
MAX_VERIFY_RATIO = 0.8


def measure_promote() -> Iterator[Row]:
    """Measure with both image stores."""
    stores: tuple[StoreKind, ...] = ("containerd", "graph")
    for store in stores:
        with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), store) as box:
            directory = Path(name)
            sample = create_project(
                directory, box, {"big": copy_installed_files(directory / "files", LAYERS, LAYER_BYTES)}
            )
            # A separate cache can be emptied before each first promotion.
            environment = sample.environment | {"XDG_CACHE_HOME": str(directory / "cache")}
            store_name = "classic" if store == "graph" else store
            yield from _measure_store(store_name, replace(sample, environment=environment))
            yield from _measure_set(store_name, replace(sample, environment=environment))


def _measure_store(store: str, sample: Project) -> Iterator[Row]:
    dockerfile = sample.root / "big" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("COPY hold /hold\n", "COPY hold /hold\nCOPY small /small\n"))
    numbers = count()
    _commit_change(sample, next(numbers))
    newest = "$(docker images --quiet sample/big | head -n 1)"  # older ones expire

    def run(script: str) -> Measurement:
        return measure_script(script, sample.root, sample.environment)

    def changed() -> Measurement:
        _commit_change(sample, next(numbers))
        return sample.run("promote")

    def save_changed() -> Measurement:
        return run(f"docker save {newest} > save.tar; rm save.tar")

    measurements = measure_in_turn(
        ROUNDS,
        gzip=lambda: run(f"docker save {newest} | gzip > save.tar.gz; rm save.tar.gz"),
        first=lambda: _promote_first(sample),
        changed=changed,
        save_changed=save_changed,
        save=lambda: run(f"docker save {newest} > /dev/null"),
        verify=lambda: sample.run("verify"),
        sums=lambda: run("cd $(ls -d promotion/*/0* | tail -n 1); sha256sum --check --quiet SHA256SUMS"),
    )
    ours, verify = measurements["first"], measurements["verify"]
    yield from _compare_with_save(f"promote, {store} store", store, measurements)
    yield create_row(
        f"promote, small change, {store} store",
        measurements["changed"],
        "docker save > file",
        measurements["save_changed"],
        MAX_CHANGE_RATIO[store],
    )
    yield Row(f"promote, {store} store", "120 MiB", ours.memory, MAX_MEMORY_BYTES, 1.0, unit="B")
    yield create_row(f"verify, {store} store", verify, "sha256sum --check", measurements["sums"], MAX_VERIFY_RATIO)
    yield Row(f"verify, {store} store", "120 MiB", verify.memory, MAX_MEMORY_BYTES, 1.0, unit="B")
    yield _measure_pack(store, sample)


def _measure_set(store: str, sample: Project) -> Iterator[Row]:
    """Measure the promotion of several images on the base of the sample, and the size of their archive."""
    dockerfile = sample.root / "big" / "Dockerfile"
    targets = [f"big{number}" for number in range(SET_IMAGES)]
    stages = [f"FROM base AS {target}\nCOPY hold /{target}\n" for target in targets]
    base = dockerfile.read_text().replace("FROM scratch\n", "FROM scratch AS base\n")
    dockerfile.write_text("".join([base, *stages, "FROM base\n"]))
    with (sample.root / ".lyra.toml").open("a") as file:
        for target in targets:
            file.write(f'\n[images.{target}]\ncontext = "big"\ntarget = "{target}"\n')
            file.write(
                f'\n[services.{target}]\nimage = "{target}"\n'
                'limits = { cpus = 0.1, memory = "16m", pids = 8, disk = "1m" }\n'
            )
    _commit_change(sample, -1)
    built = json.loads(sample.output("build", "--json"))["images"]
    references = " ".join(image["reference"] for image in built.values())

    def run(script: str) -> Measurement:
        return measure_script(script, sample.root, sample.environment)

    measurements = measure_in_turn(
        ROUNDS,
        first=lambda: _promote_first(sample),
        verify=lambda: sample.run("verify"),
        save=lambda: run(f"docker save {references} > /dev/null"),
        gzip=lambda: run(f"docker save {references} | gzip > save.tar.gz; rm save.tar.gz"),
    )
    name = f"{SET_IMAGES + 1} images on one base, {store} store"
    yield from _compare_with_save(f"promote, {name}", store, measurements)
    for command in ("first", "verify"):
        memory = measurements[command].memory
        yield Row(f"{command}, {name}".replace("first", "promote"), "120 MiB", memory, MAX_MEMORY_BYTES, 1.0, unit="B")
    if store == "containerd":  # which saves compressed layers
        run(f"docker save {references} > save.tar")
        saved = (sample.root / "save.tar").stat().st_size
        (sample.root / "save.tar").unlink()
        (archive,) = sample.root.glob("promotion/*/*/images/*.tar")
        yield Row(f"archive, {name}", "one docker save of all", archive.stat().st_size, saved, 1.02, unit="B")


def _promote_first(sample: Project) -> Measurement:
    """Promote what was just built and tested for the first time: no bundle is there, and no compressed layer."""
    layers = Path(sample.environment["XDG_CACHE_HOME"], "lyra", "layers")
    for path in (sample.root / "promotion", layers / "blobs", layers / "compressed"):
        shutil.rmtree(path, ignore_errors=True)
    return sample.run("promote")


def _compare_with_save(name: str, store: str, measurements: Mapping[str, Measurement]) -> Iterator[Row]:
    first = measurements["first"]
    yield create_row(name, first, "docker save | gzip", measurements["gzip"], MAX_GZIP_RATIO)
    yield create_row(name, first, "docker save > /dev/null", measurements["save"], MAX_SAVE_RATIO[store])


def _commit_change(sample: Project, number: int) -> None:
    """Change a small layer, build and test it."""
    (sample.root / "big" / "small").write_text(f"{number}\n" * 1000)
    commit_all(sample.root)
    sample.run("build", "test")


def _measure_pack(store: str, sample: Project) -> Row:
    """Compare the size of a pack since the previous version with the changed layers."""
    new, old = (entry["version"] for entry in json.loads(sample.output("bundle.list", "--json"))["versions"][:2])
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as medium:
        pack = json.loads(sample.output("bundle.pack", new, "--since", old, "--to", medium, "--json"))
    (image,) = json.loads((sample.root / "promotion/sample" / new / "manifest.json").read_text())["images"]
    omitted = pack["archives"][0]["omitted_layers"]
    layers = sum(layer["size"] for layer in image["layers"] if layer["digest"] not in omitted)
    name = f"pack since the previous version, {store} store"
    return Row(name, "changed layers and 64 KiB", pack["size"], layers + MAX_OVERHEAD_BYTES, 1.0, unit="B")
