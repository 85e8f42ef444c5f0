"""Run the program in a fork of a process that has imported it: most of the time of a short command is its imports.

What depends on the start of Python itself (its options, encodings, signals, memory) is tested by `Project.start`.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import runpy
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import TimeoutExpired
from types import SimpleNamespace
from typing import Any

_READ_AT_START = ("LANG", "LC_", "PYTHON", "TMPDIR", "TZ")
"""Beginnings of the variables that Python reads when it starts."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.imported"])


def can_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a new Python would start as that of the tests did."""
    own, wanted = (
        {key: value for key, value in variables.items() if key.startswith(_READ_AT_START) and key != "PYTHONPATH"}
        for variables in (os.environ, environment)
    )
    return own == wanted and Path(environment.get("PYTHONPATH", ".")) == Path(__file__).parents[1]


def run_forked(
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    timeout: float,
    module: str = "lyra_tasks",
) -> tuple[int, str, str]:
    """Return the exit code and both outputs of the program; raise TimeoutExpired, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory(prefix="pytest-forked-") as name:
        out, err = Path(name, "out"), Path(name, "err")
        process = _CONTEXT.Process(target=_run, args=(module, tuple(arguments), directory, dict(environment), out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutExpired(list(arguments), timeout, out.read_bytes(), err.read_bytes())
        return process.exitcode, out.read_text(), err.read_text()


def _run(
    module: str, arguments: tuple[str, ...], directory: Path, environment: dict[str, str], out: Path, err: Path
) -> None:
    """Become the program: `python -W error -m lyra_tasks`, or that of another module."""
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        handle = os.open(path, mode | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), "utf-8"),
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), "utf-8"),
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(2, "w")), "utf-8", errors="backslashreplace", line_buffering=True),
    )
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    tempfile.tempdir = None
    warnings.resetwarnings()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
    if not {"promote", "release"}.isdisjoint(arguments):
        _fork_sbom_process()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:  # `multiprocessing` calls no exit handlers
        atexit._run_exitfuncs()


def _fork_sbom_process() -> None:
    """Let a fork format the SBOMs of this program, before it has threads; to load libraries again takes half a second.

    It ends with the program, whose end of the pipe it reads.
    """
    from lyra_tasks.bundle.content import sbom, sbom_process

    (requests, request), (answer, answers) = os.pipe(), os.pipe()
    if not os.fork():
        os.dup2(requests, 0)
        os.dup2(answers, 1)
        os.close(request)
        sbom.answer_requests()
        os._exit(0)
    os.close(requests)
    os.close(answers)
    process: Any = SimpleNamespace(stdin=open(request, "wb"), stdout=open(answer, "rb"), wait=lambda: None)  # noqa: SIM115

    @contextmanager
    def start_sbom_process() -> Iterator[sbom_process.SbomProcess]:
        with tempfile.TemporaryFile() as errors:
            yield sbom_process.SbomProcess(process, errors)

    sbom_process.start_sbom_process = start_sbom_process
