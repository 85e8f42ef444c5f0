"""This repository's own tasks: Lyra's, together with `check`, `fuzz`, `matrix` and `bench`."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import task

import lyra_tasks

_HERE = Path(__file__).resolve().parent
_BIN = Path(sys.executable).parent
_STATIC_CHECKS = (
    "ruff format --check .",
    "ruff check .",
    "codespell --dictionary - --dictionary .ci/dialect.txt",
    "lint-imports",
    "mkdocs build",  # not --quiet, which would hide the warnings from its strict mode
)
# beside the quick tests, which do not use all of two processors
_TYPE_CHECKS = ("mypy", "mypy --platform darwin --cache-dir .mypy_cache/darwin --package lyra_tasks")
# of the quick tests: measuring the others would take minutes more
_COVERAGE_OPTIONS = "--cov --cov-report=term:skip-covered"
# Tests of one file share what they build.
_ALL_TESTS = "--numprocesses auto --maxprocesses 4 --dist loadfile"
_QUICK_TESTS = f'{_ALL_TESTS} -m "not slow" --ignore tests/engine'
# Most of them wait for an engine: six at once, on any machine, in the order of tests/engine/conftest.py.
_ENGINE_TESTS = "--numprocesses 6 --dist loadfile --no-loadscope-reorder"
_THOROUGH_TESTS = f"{_ENGINE_TESTS} -m slow"
_SLOW_TESTS = f'{_ENGINE_TESTS} -m "slow and not thorough"'


@task
def tools(c: Any) -> None:
    """Install what this repository's own tasks need, unless it is here."""
    if find_spec("xdist") is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        completed = subprocess.run([*command, "--editable", f"{_HERE}[dev]"], check=False)
        if completed.returncode:
            raise Exit("Cannot install the tools; the message above says why", code=3)


@task(
    pre=[tools],
    help={
        "only": "Run only tests whose names contain NAME, thorough ones too",
        "fast": "Skip tests that need an engine or are slow",
        "thorough": "Run tests that explore or repeat, too; for nights and releases",
    },
)
def check(c: Any, only: str = "", fast: bool = False, thorough: bool = False) -> None:
    """Check format, lint, types, spelling and docs; run the tests."""
    if fast and thorough:
        raise Exit("--fast and --thorough exclude each other; name one of them", code=2)
    if only:
        test_runs = [f'{_QUICK_TESTS if fast else _ALL_TESTS} -k "{only}"']
    elif fast:
        test_runs = [_QUICK_TESTS]
    else:
        test_runs = [f"{_QUICK_TESTS} {_COVERAGE_OPTIONS}", _THOROUGH_TESTS if thorough else _SLOW_TESTS]
    with c.cd(str(_HERE)):
        for command in _STATIC_CHECKS:
            _run(c, command)
        with ExitStack() as type_checks:
            for command in _TYPE_CHECKS:
                type_checks.enter_context(_run(c, command, asynchronous=True))
            _run(c, f"pytest {test_runs[0]}")
        for options in test_runs[1:]:
            _run(c, f"pytest {options}")


def _run(c: Any, command: str, **options: Any) -> Any:
    """Run a tool of the environment; an asynchronous one shows its output only if it fails."""
    return c.run(f'"{_BIN}"/{command}', echo=True, echo_format=f"== {command}", pty=False, in_stream=False, **options)


@task(
    pre=[tools],
    help={"examples": "Damage N documents for each reader", "only": "Run only readers whose names contain NAME"},
)
def fuzz(c: Any, examples: int = 2500, only: str = "") -> None:
    """Read damaged documents with every reader: each must end with its documented error."""
    command = [sys.executable, "-m", "tests.fuzz.run", f"--examples={examples}", f"--only={only}"]
    raise Exit(code=subprocess.run(command, cwd=_HERE, check=False).returncode)


@task(
    pre=[tools],
    iterable=["engine", "path"],
    help={"engine": "Test only this engine (repeatable)", "path": "Run only the tests in PATH (repeatable)"},
)
def matrix(c: Any, engine: Any = None, path: Any = None) -> None:
    """Run the engine tests on every engine; takes an hour."""
    command = [sys.executable, "-m", "tests.engines", *(f"--engine={name}" for name in engine or ()), *(path or ())]
    raise Exit(code=subprocess.run(command, cwd=_HERE, check=False).returncode)


@task(
    pre=[tools],
    iterable=["only"],
    help={
        "only": "Measure only this row (repeatable)",
        "json": "Write the results to FILE as JSON, too",
        "markdown": "Write the results to FILE as a page with facts of this machine, too",
    },
)
def bench(c: Any, only: Any = None, json: str = "", markdown: str = "") -> None:
    """Measure Lyra against the plain tools, side by side."""
    command = [sys.executable, str(_HERE / "benchmarks" / "run.py"), *(f"--only={row}" for row in only or ())]
    command += [f"--{name}={file}" for name, file in (("json", json), ("markdown", markdown)) if file]
    raise Exit(code=subprocess.run(command, check=False).returncode)


namespace: Collection = lyra_tasks.collection(check, fuzz, matrix, bench)
