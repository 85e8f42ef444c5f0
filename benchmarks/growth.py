"""What becomes of the words as a project grows: services, runs in its journal, bundles.

Each row holds a larger project against the smallest, times how much larger it is: more than 1 is worse than linear.
What must not depend on the past at all is held against the smallest itself. Services are real; runs and bundles are
those of a real run, written down as often as wanted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Row, Spent, in_turn, row
from benchmarks.project import Project, engine, project
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import read_index
from lyra_tasks.bundle.format.manifest import BundleEntry, encode_document
from lyra_tasks.engine.sandbox import Sandbox
from lyra_tasks.records.journal import Journal

SERVICES = (1, 10, 50)
RUNS = (10, 100, 1000)
BUNDLES = (1, 10, 100)
TIMES = 5
FLAT = 1.3
# Of a project with a past: words whose time may grow with it, and words that must not notice it.
GROWING = {"bundle.list": ("bundle.list",), "history": ("history",), "clean": ("clean",)}
LEVEL = {"--list": ("--list",), "status": ("status",), "build": ("build",)}
_SERVICE = """
[services.sSERVICE]
image = "one"
limits = { cpus = 0.02, memory = "16m", pids = 32, disk = "1m" }
"""


def rows() -> Iterator[Row]:
    """The rows of all three kinds of growth."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), "containerd") as box:
        folder = Path(name)
        yield from _more("services", SERVICES, [_of_services(folder / f"s{n}", box, n) for n in SERVICES], _life)
        yield from _past("runs", RUNS, folder, box, _with_runs)
        yield from _past("bundles", BUNDLES, folder, box, _with_bundles)


def _of_services(folder: Path, box: Sandbox, count: int) -> Project:
    """A project whose one image is run as so many services beside its own."""
    made = project(folder, box, {"one": []})
    config = made.root / ".lyra.toml"
    config.write_text(
        config.read_text() + "".join(_SERVICE.replace("SERVICE", str(number)) for number in range(1, count))
    )
    return made


def _life(one: Project) -> Mapping[str, Callable[[], Spent]]:
    """The words of the runbook, each with something to do."""

    def promote() -> Spent:
        shutil.rmtree(one.root / "promotion", ignore_errors=True)
        return one.word("promote")

    return {
        "build": lambda: one.word("build"),
        "test": lambda: one.word("test"),
        "promote": promote,
        "clean": lambda: one.word("clean"),
    }


def _more(
    what: str,
    sizes: Sequence[int],
    projects: Sequence[Project],
    words: Callable[[Project], Mapping[str, Callable[[], Spent]]],
) -> Iterator[Row]:
    calls = {size: words(each) for size, each in zip(sizes, projects, strict=True)}
    for word in calls[sizes[0]]:
        found = in_turn(1, **{str(size): calls[size][word] for size in sizes})
        for size in sizes[1:]:
            factor = size / sizes[0]
            yield row(f"{word}, {size} {what}", found[str(size)], f"{factor:g} times {sizes[0]}",
                      _times(found[str(sizes[0])], factor), 1.0)  # fmt: skip


def _past(
    what: str, sizes: Sequence[int], folder: Path, box: Sandbox, grow: Callable[[Project, int], None]
) -> Iterator[Row]:
    """The words of projects that differ in nothing but how much they have behind them, in turn."""
    projects = {size: project(folder / f"{what}{size}", box, {"one": []}) for size in sizes}
    for size, each in projects.items():
        each.word("build", "test", "promote")
        grow(each, size)
    for name, argv in {**LEVEL, **GROWING}.items():
        found = in_turn(TIMES, **{str(size): _call(each, argv) for size, each in projects.items()})
        first = found[str(sizes[0])]
        for size in sizes[1:]:
            factor, goal = (1.0, FLAT) if name in LEVEL else (size / sizes[0], 1.0)
            against = f"{sizes[0]} {what}" if name in LEVEL else f"{factor:g} times {sizes[0]}"
            yield row(f"{name}, {size} {what}", found[str(size)], against, _times(first, factor), goal)


def _call(one: Project, argv: Sequence[str]) -> Callable[[], Spent]:
    return lambda: one.word(*argv)


def _times(spent: Spent, factor: float) -> Spent:
    return Spent(spent.seconds * factor, spent.memory, tuple(each * factor for each in spent.rounds))


def _journal(one: Project) -> Journal:
    (path,) = Path(one.environment["XDG_STATE_HOME"], "lyra").glob("*/journal.jsonl")
    return Journal(path)


def _with_runs(one: Project, count: int) -> None:
    """As many runs in the journal: the entries of its first run, written down again under other names."""
    journal = _journal(one)
    entries = list(journal.entries())
    runs = list(dict.fromkeys(entry.run for entry in entries))
    first = [(entry.event, entry.data) for entry in entries if entry.run == runs[0]]
    for number in range(len(runs), count):
        journal.extend(f"{runs[0][:-6]}{number:06x}", first)


def _with_bundles(one: Project, count: int) -> None:
    """As many bundles: copies of the real one under other versions, entered into the list."""
    (parent,) = (one.root / "promotion").iterdir()
    index = read_index(parent, parent.name)
    real = index.versions[-1]
    for number in range(len(index.versions), count):
        version = f"0.0.{number}"
        shutil.copytree(parent / real.version, parent / version)
        index = index.with_entry(BundleEntry(**{**real.model_dump(), "version": version, "is_snapshot": False}))
    (parent / layout.INDEX_FILE).write_bytes(encode_document(index))
