"""The engines that this repository supports, and their tests: `./inv matrix [--engine NAME]`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.engine.sandbox import StoreKind

REPOSITORY = Path(__file__).resolve().parents[1]
VARIABLE = "LYRA_TEST_ENGINE"
DEFAULT = "26.1"
# As in `check` of tasks.py
WORKERS = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile")


@dataclass(frozen=True)
class Kind:
    """A Debian suite with an engine, and the engine's image store."""

    suite: str
    store: StoreKind


ENGINES = {
    "20.10": Kind("bookworm", "graph"),
    DEFAULT: Kind("trixie", "containerd"),
    "26.1-classic": Kind("trixie", "graph"),
    "newest": Kind("sid", "containerd"),
}
OTHERS = tuple(name for name in ENGINES if name != DEFAULT)


def chosen() -> Kind:
    """Return the engine of this test session; raise ValueError if it is unknown."""
    name = os.environ.get(VARIABLE) or DEFAULT
    if name not in ENGINES:
        raise ValueError(f"{VARIABLE}: unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


@dataclass(frozen=True)
class Result:
    """The test result of an engine, with the exit code of pytest."""

    name: str
    tests: int
    failed: int
    skipped: int
    seconds: float
    exit_code: int


def run(name: str, paths: Sequence[str]) -> Result:
    """Run the tests of `paths` on an engine; pytest prints to the terminal."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "tests.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *WORKERS, f"--junitxml={report}", *paths],
            cwd=REPOSITORY,
            env={**os.environ, VARIABLE: name},
            check=False,
        )
        suites = list(ElementTree.parse(report).iter("testsuite")) if report.exists() else []
    counts = {
        key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    }
    failed = counts["failures"] + counts["errors"]
    return Result(name, counts["tests"], failed, counts["skipped"], time.monotonic() - started, done.returncode)


def main() -> int:
    """Test the selected engines (default: all) and print a table; return 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="Test only this engine (repeatable)")
    parser.add_argument("paths", nargs="*", default=["tests/engine"], help="The tests to run (default: tests/engine)")
    options = parser.parse_args()
    results = []
    for name in options.engine or ENGINES:
        console.info(f"testing on {name} …")
        results.append(run(name, options.paths))
    header = ("engine", "packages of", "store", "tests", "failed", "skipped", "seconds", "")
    console.print_table(header, [_cells(result) for result in results])
    return 0 if all(result.exit_code == 0 for result in results) else 1


def _cells(result: Result) -> tuple[str, ...]:
    kind = ENGINES[result.name]
    outcome = console.style("failed", "red") if result.exit_code else console.style("passed", "green")
    counts = (str(result.tests), str(result.failed), str(result.skipped), f"{result.seconds:.0f}")
    return (result.name, kind.suite, kind.store, *counts, outcome)


if __name__ == "__main__":
    sys.exit(main())
