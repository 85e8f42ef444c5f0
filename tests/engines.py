"""The engines that this repository is tested on, and all engine tests on each: `./inv matrix [--engine NAME]`."""

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
# as `check` in tasks.py runs them
WORKERS = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile")


@dataclass(frozen=True)
class Kind:
    """A suite whose packages make an engine, and the image store that it uses."""

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
    """The engine of this test session. ValueError for a name that there is not."""
    name = os.environ.get(VARIABLE) or DEFAULT
    if name not in ENGINES:
        raise ValueError(f"{VARIABLE}: there is no engine {name!r}; choose {', '.join(ENGINES)}")
    return ENGINES[name]


@dataclass(frozen=True)
class Result:
    """What one engine's tests came to; `exit_code` is pytest's."""

    name: str
    tests: int
    failed: int
    skipped: int
    seconds: float
    exit_code: int


def run(name: str, paths: Sequence[str]) -> Result:
    """All tests of `paths` on one engine; what pytest prints is shown as it comes."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *WORKERS, f"--junitxml={report}", *paths],
            cwd=REPOSITORY,
            env={**os.environ, VARIABLE: name},
            check=False,
        )
        suites = list(ElementTree.parse(report).iter("testsuite")) if report.exists() else []
    count = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return Result(name, count["tests"], failed, count["skipped"], time.monotonic() - started, done.returncode)


def main() -> int:
    """Test what is asked for, every engine by default, and show it as a table; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this engine (repeatable)")
    parser.add_argument("paths", nargs="*", default=["tests/engine"], help="what to test (default: tests/engine)")
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
    verdict = console.style("failed", "red") if result.exit_code else console.style("passed", "green")
    counts = (str(result.tests), str(result.failed), str(result.skipped), f"{result.seconds:.0f}")
    return (result.name, kind.suite, kind.store, *counts, verdict)


if __name__ == "__main__":
    sys.exit(main())
