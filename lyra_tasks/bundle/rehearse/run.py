"""Run a rehearsal: start an engine, receive and start the bundle, run the checks, remove everything."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.format.layout import IMAGES_DIRECTORY, RECEIVE_SCRIPT
from lyra_tasks.bundle.rehearse.plan import RehearsalPlan, remove_compose_variables, render_env_file
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import connect_sandbox
from lyra_tasks.engine.objects.containers import DeployedService, list_compose_services
from lyra_tasks.errors import BundleError, CheckFailedError, PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.processes import run_captured
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from lyra_tasks.engine.sandbox import Sandbox
    from lyra_tasks.engine.workspace import Workspace

RunChecks = Callable[[Mapping[str, DeployedService]], Sequence[CheckResult]]

_RECEIVE_TIMEOUT_S = 1800.0
_START_TIMEOUT_S = 300
_OUTPUT_TAIL_LINES = 15


@dataclass(frozen=True)
class RehearsalResult:
    """The result of a rehearsal; `seconds` are by step."""

    version: str
    engine: str
    store: str
    services: tuple[str, ...]
    checks: tuple[CheckResult, ...]
    seconds: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Return whether there were checks and all of them passed."""
        return bool(self.checks) and all(check.outcome == "passed" for check in self.checks)


def run_rehearsal(plan: RehearsalPlan, work: Workspace, run_checks: RunChecks) -> RehearsalResult:
    """Run the rehearsal, and remove the engine with everything on it in any case."""
    verify_bundle(plan.facts.bundle.directory)
    state = work.paths.state / "rehearsal"
    with file_lock(work.paths.state / "rehearsal.lock", resource="the rehearsal of this checkout"):
        _remove_sandbox(state)  # of a killed rehearsal
        try:
            state.mkdir(parents=True)
            result = _ReceiverNode(plan, work, state, run_checks).run_steps()
        finally:
            _remove_sandbox(state)
    work.journal.append(
        work.run, "rehearsed", version=result.version, engine=result.engine, store=result.store,
        passed=result.passed, checks={check.title: check.outcome for check in result.checks},
    )  # fmt: skip
    return result


def _remove_sandbox(state: Path) -> None:
    if state.exists():
        sandbox.require_clean_stop(sandbox.shut_down_sandbox(state, purge=True))
        shutil.rmtree(state)


@dataclass
class _ReceiverNode:
    """The node that receives the bundle: the steps of a rehearsal and their state."""

    plan: RehearsalPlan
    work: Workspace
    state: Path
    run_checks: RunChecks
    results: Sequence[CheckResult] = ()
    services: Mapping[str, DeployedService] = field(default_factory=dict)
    sandbox: Sandbox = field(init=False)

    @property
    def directory(self) -> Path:
        return self.state / self.plan.facts.bundle.directory.name

    def run_steps(self) -> RehearsalResult:
        seconds = {}
        for name, step in (
            ("copy", self.copy_bundle),
            ("engine", self.start_engine),
            ("receive", self.receive),
            ("configure", self.configure),
            ("start", self.start_services),
            ("check", self.check_services),
        ):
            started = time.monotonic()
            step()
            seconds[name] = round(time.monotonic() - started, 3)
        engine = connect_sandbox(self.sandbox, is_own=False).facts
        return RehearsalResult(
            version=self.plan.facts.bundle.manifest.version,
            engine=engine.version,
            store=engine.store,
            services=tuple(sorted(self.services)),
            checks=tuple(self.results),
            seconds=seconds,
        )

    def copy_bundle(self) -> None:
        """Copy the bundle as to a medium; archives are hard-linked, since nothing changes them."""
        shutil.copytree(self.plan.facts.bundle.directory, self.directory, copy_function=_link_or_copy)

    def start_engine(self) -> None:
        facts = self.plan.facts
        self.sandbox = sandbox.launch_sandbox(
            self.state, cache=self.work.paths.cache, suite=self.plan.suite, memory=facts.memory, cpus=facts.cpus
        )

    def receive(self) -> None:
        console.info(f"Receiving the bundle on a throwaway engine of {self.plan.suite}")
        result = self._run_command(["sh", str(self.directory / RECEIVE_SCRIPT)], self.state, _RECEIVE_TIMEOUT_S)
        if result.returncode:
            error_class = BundleError if result.returncode in {6, 60} else PreconditionError
            raise error_class(
                f"{RECEIVE_SCRIPT} failed with exit code {result.returncode}",
                hint=f"An operator would see the same; `{RECEIVE_SCRIPT} --help` explains the exit codes",
                details=_output_tail(result),
            )

    def configure(self) -> None:
        """Write `.env` with the values of the tests, and secret files for the users who read them."""
        secrets_directory = self.state / "secrets"
        secrets_directory.mkdir(mode=0o711)
        for variable, user in self.plan.secret_files.items():
            file = secrets_directory / variable
            file.write_text(secrets.token_hex(32))
            owner, _, group = user.partition(":")
            file.chmod(0o400 if owner.isdigit() else 0o444)
            if owner.isdigit():
                os.chown(file, int(owner), int(group) if group.isdigit() else int(owner))
        env = self.directory / "deploy" / ".env"
        env.write_text(render_env_file(self.plan, self.sandbox.address, secrets_directory))
        env.chmod(0o600)

    def start_services(self) -> None:
        command = ["docker", "compose", "up", "--detach", "--wait", "--wait-timeout", str(_START_TIMEOUT_S)]
        result = self._run_command(command, self.directory / "deploy", _START_TIMEOUT_S + 60)
        if result.returncode:
            log = self._run_command(["docker", "compose", "logs", "--tail", "15"], self.directory / "deploy", 60)
            raise CheckFailedError(
                "The services do not start on an engine like Proxima's",
                hint="See the logs above, and compare with `test` on the engine of this machine",
                details=(*_output_tail(result), *self._redact(log.stdout).splitlines()),
            )
        self.services = list_compose_services(connect_sandbox(self.sandbox, is_own=False), self.plan.project)

    def check_services(self) -> None:
        if self.plan.facts.commit != self.plan.facts.bundle.manifest.source.commit:
            console.warn("The checks are those of the current commit, not those of the bundle's commit")
        self.results = self.run_checks(self.services)

    def _run_command(self, command: list[str], directory: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        environment = remove_compose_variables(self.plan, os.environ) | self.sandbox.environment()
        try:
            return run_captured(command, environment=environment, directory=directory, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise PreconditionError(
                f"`{command[0]}` timed out after {timeout:.0f} s", hint="Retry when this machine is less busy"
            ) from error

    def _redact(self, text: str) -> str:
        values = [value for values in self.plan.service_values.values() for value in values.values() if len(value) >= 8]
        return redact(text, [*values, *(file.read_text() for file in (self.state / "secrets").iterdir())])


def _link_or_copy(source: str, target: str) -> None:
    if f"/{IMAGES_DIRECTORY}/" in source:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy(source, target)


def _output_tail(result: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple((result.stdout + result.stderr).splitlines()[-_OUTPUT_TAIL_LINES:])
