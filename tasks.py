"""This repository's own words: Lyra's, together with `check`, `matrix` and `bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import task

import lyra_tasks

_HERE = Path(__file__).resolve().parent
# a file's tests stay together, since they share what they build; more workers than four would wait for the disk
_WORKERS = "--numprocesses auto --maxprocesses 4 --dist loadfile"


@task(help={"only": "run the tests whose names contain this", "fast": "leave out the tests that need an engine"})
def check(c: Any, only: str = "", fast: bool = False) -> None:
    """Format, lint, types, tests: what must be green before anything is merged."""
    python = f'"{sys.executable}"'
    tests = " ".join([_WORKERS, *([f'-k "{only}"'] if only else []), *(["--ignore=tests/engine"] if fast else [])])
    with c.cd(str(_HERE)):
        for command in ("ruff format --check .", "ruff check .", "mypy", f"pytest {tests}"):
            c.run(f"{python} -m {command}", echo=True, echo_format="== {command}", pty=False, in_stream=False)


@task(
    iterable=["engine", "path"],
    help={"engine": "test on this engine only (repeatable)", "path": "test this only (repeatable)"},
)
def matrix(c: Any, engine: Any = None, path: Any = None) -> None:
    """Run the engine tests on every engine that is supported, and show a table; takes an hour."""
    command = [sys.executable, "-m", "tests.engines", *(f"--engine={name}" for name in engine or ()), *(path or ())]
    raise Exit(code=subprocess.run(command, cwd=_HERE, check=False).returncode)


@task(
    iterable=["only"],
    help={
        "only": "measure this row only (repeatable)",
        "json": "write the results into this file, too",
        "markdown": "and as a page, with the facts of this machine, into this one",
    },
)
def bench(c: Any, only: Any = None, json: str = "", markdown: str = "") -> None:
    """Measure Lyra against the plain tools, side by side; ends with 1 where a goal is missed."""
    command = [sys.executable, str(_HERE / "benchmarks" / "run.py"), *(f"--only={row}" for row in only or ())]
    command += [f"--{name}={file}" for name, file in (("json", json), ("markdown", markdown)) if file]
    done = subprocess.run(command, check=False)
    raise Exit(code=done.returncode)


namespace: Collection = lyra_tasks.collection(check, matrix, bench)
