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
from lyra_tasks.bundle import layout
from lyra_tasks.bundle.rehearsal.plan import RehearsalPlan, filled, inherited
from lyra_tasks.bundle.verify import verify
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.connect import engine_in
from lyra_tasks.engine.deployed import DeployedService, deployed
from lyra_tasks.errors import BundleError, PreconditionError, VerdictError
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.run import locked

if TYPE_CHECKING:
    from lyra_tasks.engine.sandbox import Sandbox
    from lyra_tasks.engine.workspace import Workspace

Checks = Callable[[Mapping[str, DeployedService]], Sequence[CheckResult]]

_RECEIVE_TIMEOUT = 1800.0  # seconds
_START_TIMEOUT = 300
_TAIL = 15


@dataclass(frozen=True)
class Rehearsal:
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


def run(plan: RehearsalPlan, work: Workspace, checks: Checks) -> Rehearsal:
    """Rehearse; the engine and all that was on it is gone afterwards, whatever happened.

    BundleError where `receive.sh` refuses the bundle, PreconditionError where the engine cannot be had or fails,
    VerdictError where the services do not start.
    """
    verify(plan.facts.bundle)
    state = work.paths.state / "rehearsal"
    with locked(work.paths.state / "rehearsal.lock", what="the rehearsal of this checkout"):
        _sweep(state)  # of one that was killed
        try:
            state.mkdir(parents=True)
            result = _Stage(plan, work, state, checks).play()
        finally:
            _sweep(state)
    work.journal.append(
        work.run, "rehearsed", version=result.version, engine=result.engine, store=result.store,
        passed=result.passed, checks={check.title: check.outcome for check in result.checks},
    )  # fmt: skip
    return result


def _sweep(state: Path) -> None:
    if state.exists():
        sandbox.require_nothing_left(sandbox.down(state, purge=True))
        shutil.rmtree(state)


class _Stage:
    """The steps in their order, each timed; what one finds out, the later ones know."""

    def __init__(self, plan: RehearsalPlan, work: Workspace, state: Path, checks: Checks) -> None:
        self.plan = plan
        self.work = work
        self.state = state
        self.checks = checks
        self.folder = state / plan.facts.bundle.name
        self.results: Sequence[CheckResult] = ()
        self.services: Mapping[str, DeployedService] = {}
        self.box: Sandbox

    def play(self) -> Rehearsal:
        seconds = {}
        for name, step in (
            ("carry", self.carry),
            ("engine", self.start_engine),
            ("receive", self.receive),
            ("configure", self.configure),
            ("start", self.start),
            ("check", self.check),
        ):
            began = time.monotonic()
            step()
            seconds[name] = round(time.monotonic() - began, 3)
        engine = engine_in(self.box, own=False).facts
        return Rehearsal(
            version=self.plan.facts.manifest.version,
            engine=engine.version,
            store=engine.store,
            services=tuple(sorted(self.services)),
            checks=tuple(self.results),
            seconds=seconds,
        )

    def carry(self) -> None:
        """A copy, as on a medium; archives share their bytes with the bundle, which nothing here changes."""
        shutil.copytree(self.plan.facts.bundle, self.folder, copy_function=_linked)

    def start_engine(self) -> None:
        facts = self.plan.facts
        self.box = sandbox.up(
            self.state, cache=self.work.paths.cache, suite=self.plan.suite, memory=facts.memory, cpus=facts.cpus
        )

    def receive(self) -> None:
        console.note(f"receiving on a throwaway engine of {self.plan.suite}")
        done = self._call(["sh", str(self.folder / layout.RECEIVE)], self.state, _RECEIVE_TIMEOUT)
        if done.returncode:
            kind = BundleError if done.returncode in {6, 60} else PreconditionError
            raise kind(
                f"{layout.RECEIVE} ended with {done.returncode}",
                hint="this is what an operator would see; `--help` of it says what the codes mean",
                details=_tail(done),
            )

    def configure(self) -> None:
        """Fill in `.env`, with the values that tests use; secret files belong to the user who reads them."""
        vault = self.state / "secrets"
        vault.mkdir(mode=0o711)
        for variable, user in self.plan.secret_files.items():
            file = vault / variable
            file.write_text(secrets.token_hex(32))
            owner, _, group = user.partition(":")
            file.chmod(0o400 if owner.isdigit() else 0o444)
            if owner.isdigit():
                os.chown(file, int(owner), int(group) if group.isdigit() else int(owner))
        env = self.folder / "deploy" / ".env"
        env.write_text(filled(self.plan, self.box.address, vault))
        env.chmod(0o600)

    def start(self) -> None:
        command = ["docker", "compose", "up", "--detach", "--wait", "--wait-timeout", str(_START_TIMEOUT)]
        done = self._call(command, self.folder / "deploy", _START_TIMEOUT + 60)
        if done.returncode:
            log = self._call(["docker", "compose", "logs", "--tail", "15"], self.folder / "deploy", 60)
            raise VerdictError(
                "the services do not start on an engine like Proxima's",
                hint="their last lines are above; `test` runs the same on this machine's engine",
                details=(*_tail(done), *self._masked(log.stdout).splitlines()),
            )
        self.services = deployed(engine_in(self.box, own=False), self.plan.project)

    def check(self) -> None:
        if self.plan.facts.commit != self.plan.facts.manifest.source.commit:
            console.warn("the checks are those of the tree as it is now, which is another commit than the bundle's")
        self.results = self.checks(self.services)

    def _call(self, command: list[str], folder: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, cwd=folder, env=inherited(self.plan, os.environ) | self.box.environment(), timeout=timeout,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PreconditionError(
                f"`{command[0]}` did not end within {timeout:.0f} s", hint="is this machine very busy?"
            ) from error

    def _masked(self, text: str) -> str:
        for values in self.plan.values.values():
            for value in values.values():
                text = text.replace(value, "***") if len(value) >= 8 else text
        for file in (self.state / "secrets").iterdir():
            text = text.replace(file.read_text(), "***")
        return text


def _linked(source: str, target: str) -> None:
    if f"/{layout.IMAGES}/" in source:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy(source, target)


def _tail(done: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple((done.stdout + done.stderr).splitlines()[-_TAIL:])
