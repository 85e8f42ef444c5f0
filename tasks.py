"""This repository's own tasks: Lyra's, together with `check`, `fuzz`, `matrix` and `bench`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
_TYPE_CHECKS = ("mypy", "mypy --platform darwin --cache-dir .mypy_cache/darwin --package lyra_tasks")
# of the quick tests, at night: a figure that no check depends on, and measuring the others would take minutes more
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
        steps = [(*_TYPE_CHECKS, f"pytest {_QUICK_TESTS if fast else _ALL_TESTS} -k {shlex.quote(only)}")]
    elif fast:
        steps = [(*_TYPE_CHECKS, f"pytest {_QUICK_TESTS}")]
    elif thorough:
        steps = [(*_TYPE_CHECKS, f"pytest {_QUICK_TESTS} {_COVERAGE_OPTIONS}"), (f"pytest {_THOROUGH_TESTS}",)]
    else:  # tests of engines wait, and leave a processor idle for a third of their time
        steps = [(*_TYPE_CHECKS, f"pytest {_QUICK_TESTS}", f"pytest {_SLOW_TESTS}")]
    for step in (*((command,) for command in _STATIC_CHECKS), *steps):
        _run_together(step)


def _run_together(commands: Sequence[str]) -> None:
    """Run tools at the same time and show the last one; of the others, the last line, or all if they fail."""
    with ThreadPoolExecutor(len(commands)) as pool:
        hidden = [pool.submit(_run, command, is_shown=False) for command in commands[:-1]]
        exit_codes = [_run(commands[-1]), *(future.result() for future in hidden)]
    if any(exit_codes):
        raise Exit(code=1)


def _run(command: str, *, is_shown: bool = True) -> int:
    """Run a tool of the environment and return its exit code."""
    print(f"== {command}", flush=True)
    program, *arguments = shlex.split(command)
    output, errors = (None, None) if is_shown else (subprocess.PIPE, subprocess.STDOUT)
    done = subprocess.run(
        [_BIN / program, *arguments],
        cwd=_HERE, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, text=True, check=False,
    )  # fmt: skip
    if not is_shown:
        lines = done.stdout.splitlines()
        print(f"== {command}:", *(lines if done.returncode else lines[-1:]), sep="\n", flush=True)
    return done.returncode


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
