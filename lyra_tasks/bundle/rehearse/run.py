"""Making a rehearsal: engine, reception, configuration, start, checks, and nothing left of it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.format.layout import IMAGES_DIRECTORY, RECEIVE_SCRIPT
from lyra_tasks.bundle.rehearse.plan import RehearsalPlan, remove_compose_variables, render_env_file
from lyra_tasks.bundle.verify.bundle import verify_bundle
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import connect_sandbox
from lyra_tasks.engine.objects.containers import DeployedService, list_compose_services
from lyra_tasks.errors import BundleError, CheckFailedError, PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.records.evidence import CheckResult

if TYPE_CHECKING:
    from lyra_tasks.engine.sandbox import Sandbox
    from lyra_tasks.engine.workspace import Workspace

RunChecks = Callable[[Mapping[str, DeployedService]], Sequence[CheckResult]]

_RECEIVE_TIMEOUT_S = 1800.0  # seconds
_START_TIMEOUT_S = 300
_OUTPUT_TAIL_LINES = 15


@dataclass(frozen=True)
class RehearsalResult:
    """What came of it: on which engine, what was received and started, the checks, seconds by step."""

    version: str
    engine: str
    store: str
    services: tuple[str, ...]
    checks: tuple[CheckResult, ...]
    seconds: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether there were checks, and all of them passed."""
        return bool(self.checks) and all(check.outcome == "passed" for check in self.checks)


def run_rehearsal(plan: RehearsalPlan, work: Workspace, run_checks: RunChecks) -> RehearsalResult:
    """Rehearse; the engine and all that was on it is gone afterwards, whatever happened.

    BundleError where `receive.sh` refuses the bundle, PreconditionError where the engine cannot be had or fails,
    VerdictError where the services do not start.
    """
    verify_bundle(plan.facts.bundle)
    state = work.paths.state / "rehearsal"
    with file_lock(work.paths.state / "rehearsal.lock", resource="the rehearsal of this checkout"):
        _remove_sandbox(state)  # of one that was killed
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


class _ReceiverNode:
    """The steps in their order, each timed; what one finds out, the later ones know."""

    def __init__(self, plan: RehearsalPlan, work: Workspace, state: Path, run_checks: RunChecks) -> None:
        self.plan = plan
        self.work = work
        self.state = state
        self.run_checks = run_checks
        self.directory = state / plan.facts.bundle.name
        self.results: Sequence[CheckResult] = ()
        self.services: Mapping[str, DeployedService] = {}
        self.sandbox: Sandbox

    def run_steps(self) -> RehearsalResult:
        seconds = {}
        for name, step in (
            ("carry", self.copy_bundle),
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
            version=self.plan.facts.manifest.version,
            engine=engine.version,
            store=engine.store,
            services=tuple(sorted(self.services)),
            checks=tuple(self.results),
            seconds=seconds,
        )

    def copy_bundle(self) -> None:
        """A copy, as on a medium; archives share their bytes with the bundle, which nothing here changes."""
        shutil.copytree(self.plan.facts.bundle, self.directory, copy_function=_link_or_copy)

    def start_engine(self) -> None:
        facts = self.plan.facts
        self.sandbox = sandbox.launch_sandbox(
            self.state, cache=self.work.paths.cache, suite=self.plan.suite, memory=facts.memory, cpus=facts.cpus
        )

    def receive(self) -> None:
        console.info(f"receiving on a throwaway engine of {self.plan.suite}")
        result = self._run_command(["sh", str(self.directory / RECEIVE_SCRIPT)], self.state, _RECEIVE_TIMEOUT_S)
        if result.returncode:
            kind = BundleError if result.returncode in {6, 60} else PreconditionError
            raise kind(
                f"{RECEIVE_SCRIPT} ended with {result.returncode}",
                hint="this is what an operator would see; `--help` of it says what the codes mean",
                details=_output_tail(result),
            )

    def configure(self) -> None:
        """Fill in `.env`, with the values that tests use; secret files belong to the user who reads them."""
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
                "the services do not start on an engine like Proxima's",
                hint="their last lines are above; `test` runs the same on this machine's engine",
                details=(*_output_tail(result), *self._redact(log.stdout).splitlines()),
            )
        self.services = list_compose_services(connect_sandbox(self.sandbox, is_own=False), self.plan.project)

    def check_services(self) -> None:
        if self.plan.facts.commit != self.plan.facts.manifest.source.commit:
            console.warn("the checks are those of the tree as it is now, which is another commit than the bundle's")
        self.results = self.run_checks(self.services)

    def _run_command(self, command: list[str], directory: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, cwd=directory, env=remove_compose_variables(self.plan, os.environ) | self.sandbox.environment(), timeout=timeout,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PreconditionError(
                f"`{command[0]}` did not end within {timeout:.0f} s", hint="is this machine very busy?"
            ) from error

    def _redact(self, text: str) -> str:
        for values in self.plan.service_values.values():
            for value in values.values():
                text = text.replace(value, "***") if len(value) >= 8 else text
        for file in (self.state / "secrets").iterdir():
            text = text.replace(file.read_text(), "***")
        return text


def _link_or_copy(source: str, target: str) -> None:
    if f"/{IMAGES_DIRECTORY}/" in source:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy(source, target)


def _output_tail(result: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple((result.stdout + result.stderr).splitlines()[-_OUTPUT_TAIL_LINES:])
