"""Commands in growing projects: services, runs in the journal, bundles, third-party images, files in a context.

Each row compares a larger project with the smallest one times its growth, so more than 1 is worse than linear. Commands
that must not depend on the size are compared with the smallest project itself. Services, images and files are real;
runs and bundles are copies of a real one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Measurement, Row, create_row, measure_in_turn
from benchmarks.project import Project, commit_all, create_project, start_engine
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleEntry, build_index, read_index
from lyra_tasks.bundle.format.manifest import encode_document
from lyra_tasks.engine.sandbox import Sandbox
from lyra_tasks.records.journal import Journal

SERVICES = (1, 10, 50)
RUNS = (10, 100, 1000)
BUNDLES = (1, 10, 100)
THIRD_PARTY_IMAGES = (1, 10, 30)
FILES = (100, 10_000, 100_000)
ROUNDS = 5
MAX_CONSTANT_RATIO = 1.3
# Commands whose time may grow with the history of a project, and commands whose time must not.
GROWING = {"bundle.list": ("bundle.list",), "history": ("history",), "clean": ("clean",)}
CONSTANT = {"--list": ("--list",), "status": ("status",), "build": ("build",)}
_SERVICE = """
[services.sSERVICE]
image = "one"
limits = { cpus = 0.02, memory = "16m", pids = 32, disk = "1m" }
"""


def measure_growth() -> Iterator[Row]:
    """Measure all three kinds of growth."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        directory = Path(name)
        yield from _measure_services(
            "services",
            SERVICES,
            [_create_services_project(directory / f"s{n}", box, n) for n in SERVICES],
            _runbook_calls,
        )
        yield from _measure_history("runs", RUNS, directory, box, _add_runs)
        yield from _measure_history("bundles", BUNDLES, directory, box, _add_bundles)
        yield from _measure_growth(
            "third-party images",
            {n: _create_third_party_project(directory / f"t{n}", box, n) for n in THIRD_PARTY_IMAGES},
            growing={"build": ("build",), "test": ("test", "--fresh")},
            constant={"--list": ("--list",), "status": ("status",)},
        )
        yield from _measure_growth(
            "files in a context",
            {n: _create_files_project(directory / f"f{n}", box, n) for n in FILES},
            growing={"build": ("build",), "status": ("status",)},
            constant={"--list": ("--list",)},
        )


def _create_services_project(directory: Path, box: Sandbox, count: int) -> Project:
    """Create a project whose image is run as `count` services."""
    project = create_project(directory, box, {"one": []})
    config = project.root / ".lyra.toml"
    config.write_text(
        config.read_text() + "".join(_SERVICE.replace("SERVICE", str(number)) for number in range(1, count))
    )
    return project


def _create_third_party_project(directory: Path, box: Sandbox, count: int) -> Project:
    """Create a project of services with an image each that the engine has, and that is not built here."""
    project = create_project(directory, box, {"one": []})
    built = project.output("build").split()[0]
    config = project.root / ".lyra.toml"
    text = config.read_text()
    for number in range(count):
        reference = f"vendor/image{number}:1"
        (directory / "Dockerfile").write_text(f"FROM {built}\nLABEL number={number}\n")
        command = ["docker", "build", "--quiet", "--tag", reference, str(directory), "--file", directory / "Dockerfile"]
        subprocess.run(command, env=project.environment, check=True, stdout=subprocess.DEVNULL)
        text += _SERVICE.replace("SERVICE", str(number)).replace('"one"', f'"{reference}"')
    config.write_text(text)
    commit_all(project.root)
    project.run("build", "test")
    return project


def _create_files_project(directory: Path, box: Sandbox, count: int) -> Project:
    """Create a project with so many small files in the context of its image."""
    project = create_project(directory, box, {"one": []})
    for number in range(count):
        path = project.root / "one" / "files" / str(number // 1000) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    dockerfile = project.root / "one" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("COPY hold /hold\n", "COPY hold /hold\nCOPY files /files\n"))
    commit_all(project.root)
    project.run("build", "test")
    return project


def _runbook_calls(project: Project) -> Mapping[str, Callable[[], Measurement]]:
    """Return the commands of the runbook, each with something to do."""

    def promote() -> Measurement:
        shutil.rmtree(project.root / "promotion", ignore_errors=True)
        return project.run("promote")

    return {
        "build": lambda: project.run("build"),
        "test": lambda: project.run("test"),
        "promote": promote,
        "clean": lambda: project.run("clean"),
    }


def _measure_services(
    kind: str,
    sizes: Sequence[int],
    projects: Sequence[Project],
    create_calls: Callable[[Project], Mapping[str, Callable[[], Measurement]]],
) -> Iterator[Row]:
    calls = {size: create_calls(project) for size, project in zip(sizes, projects, strict=True)}
    for command in calls[sizes[0]]:
        measurements = measure_in_turn(1, **{str(size): calls[size][command] for size in sizes})
        for size in sizes[1:]:
            factor = size / sizes[0]
            yield create_row(f"{command}, {size} {kind}", measurements[str(size)], f"{factor:g} times {sizes[0]}",
                      _multiply(measurements[str(sizes[0])], factor), 1.0)  # fmt: skip


def _measure_history(
    kind: str, sizes: Sequence[int], directory: Path, box: Sandbox, grow: Callable[[Project, int], None]
) -> Iterator[Row]:
    """Measure the commands of projects that differ only in the length of their history."""
    projects = {size: create_project(directory / f"{kind}{size}", box, {"one": []}) for size in sizes}
    for size, project in projects.items():
        project.run("build", "test", "promote")
        grow(project, size)
    yield from _measure_growth(kind, projects, growing=GROWING, constant=CONSTANT)


def _measure_growth(
    kind: str,
    projects: Mapping[int, Project],
    *,
    growing: Mapping[str, Sequence[str]],
    constant: Mapping[str, Sequence[str]],
) -> Iterator[Row]:
    """Measure commands whose time may grow with the size of a project, and commands whose time must not."""
    sizes = list(projects)
    for name, argv in {**constant, **growing}.items():
        measurements = measure_in_turn(
            ROUNDS, **{str(size): _create_call(project, argv) for size, project in projects.items()}
        )
        first = measurements[str(sizes[0])]
        for size in sizes[1:]:
            factor, goal = (1.0, MAX_CONSTANT_RATIO) if name in constant else (size / sizes[0], 1.0)
            reference = f"{sizes[0]} {kind}" if name in constant else f"{factor:g} times {sizes[0]}"
            yield create_row(
                f"{name}, {size} {kind}", measurements[str(size)], reference, _multiply(first, factor), goal
            )


def _create_call(project: Project, argv: Sequence[str]) -> Callable[[], Measurement]:
    return lambda: project.run(*argv)


def _multiply(measurement: Measurement, factor: float) -> Measurement:
    rounds = tuple(seconds * factor for seconds in measurement.rounds)
    return Measurement(measurement.seconds * factor, measurement.memory, rounds)


def _open_journal(project: Project) -> Journal:
    (path,) = Path(project.environment["XDG_STATE_HOME"], "lyra").glob("*/journal.jsonl")
    return Journal(path)


def _add_runs(project: Project, count: int) -> None:
    """Add runs to the journal: the entries of its first run under other ids."""
    journal = _open_journal(project)
    entries = list(journal.entries())
    runs = list(dict.fromkeys(entry.run for entry in entries))
    first = [(entry.event, entry.data) for entry in entries if entry.run == runs[0]]
    for number in range(len(runs), count):
        journal.extend(f"{runs[0][:-6]}{number:06x}", first)


def _add_bundles(project: Project, count: int) -> None:
    """Add bundles: copies of the real one with other versions."""
    (parent,) = (project.root / "promotion").iterdir()
    index = read_index(parent, parent.name)
    entries = list(index.versions)
    real = entries[-1]
    for number in range(len(entries), count):
        version = f"0.0.{number}"
        shutil.copytree(parent / real.version, parent / version)
        entries.append(BundleEntry(**{**real.model_dump(), "version": version, "is_snapshot": False}))
    (parent / layout.INDEX_FILE).write_bytes(encode_document(build_index(index.project, entries)))
