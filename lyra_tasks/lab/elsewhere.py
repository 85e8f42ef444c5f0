"""The project's checks against services that no lab has started: a bundle that was received and is running."""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Service, Test
from lyra_tasks.config.services import argv
from lyra_tasks.engine.deployed import DeployedService
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.checks import ask
from lyra_tasks.lab.facts import test_environment
from lyra_tasks.lab.host_check import addresses
from lyra_tasks.records.evidence import CheckResult

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.lab.running import RunningService

KINDS = frozenset({"http", "exec", "tcp", "log", "run"})
_PATIENCE = 30.0  # seconds until a service that says nothing of its health answers
_POLL = 0.5
_TAIL = 15


@dataclass(frozen=True)
class _Log:
    service: DeployedService

    def text(self) -> str:
        return self.service.log()


@dataclass(frozen=True)
class _Planned:
    service: Service
    environment: Mapping[str, str]


@dataclass(frozen=True)
class _Halt:
    asked: bool = False


@dataclass(frozen=True)
class _Elsewhere:
    """What checks ask of a service, whoever started it."""

    planned: _Planned
    deployed: DeployedService
    log: _Log
    halt: _Halt = _Halt()

    @property
    def engine(self) -> Engine:
        return self.deployed.engine

    @property
    def id(self) -> str:
        return self.deployed.id

    def address(self, port: int | str) -> tuple[str, int]:
        return self.engine.reach_at, self.deployed.ports[self.planned.service.port(port) or 0]

    def http_address(self) -> tuple[str, int]:
        return self.address(self.planned.service.http_port or 0)


def values(config: Configuration) -> dict[str, dict[str, str]]:
    """By service, the variables with which the checks are made; random ones for secrets without a value."""
    return {name: test_environment(name, service) for name, service in config.services.items()}


def check_deployed(
    services: Mapping[str, DeployedService],
    config: Configuration,
    environments: Mapping[str, Mapping[str, str]],
    root: Path,
) -> list[CheckResult]:
    """Make every check that can be made of these services; one that could not be made yet is tried again for a while.

    Checks of other services and of other kinds are left out. Values in `environments` stand for `${NAME}`, and are
    blotted out of every message.
    """
    known = {
        name: _Elsewhere(_Planned(config.services[name], environments[name]), each, _Log(each))
        for name, each in services.items()
        if name in config.services
    }
    secret = [
        environments[name][key]
        for name in known
        for key, variable in config.services[name].environment.items()
        if variable.secret
    ]
    results = []
    for test in config.tests:
        if test.kind in KINDS and (test.service is None or test.service in known):
            result = _tried(test, known, root)
            for value in secret:
                result = result.model_copy(update={"message": result.message.replace(value, "***")})
            _show(result)
            results.append(result)
    return results


def _tried(test: Test, services: Mapping[str, _Elsewhere], root: Path) -> CheckResult:
    began = time.monotonic()
    while True:
        outcome: Literal["passed", "failed", "error"]
        try:
            problem = _problem(test, services, root)
            outcome = "failed" if problem else "passed"
        except (LyraError, OSError, http.client.HTTPException, OutOfTime, KeyError) as error:
            problem, outcome = f"could not be made: {error or type(error).__name__}", "error"
        if outcome != "error" or time.monotonic() - began > _PATIENCE:
            return CheckResult(
                name=test.name,
                kind=test.kind,
                group=test.group,
                service=test.service or "",
                outcome=outcome,
                message=problem,
                seconds=round(time.monotonic() - began, 3),
            )
        time.sleep(_POLL)


def _problem(test: Test, services: Mapping[str, _Elsewhere], root: Path) -> str:
    if test.service is not None:
        return ask(cast("RunningService", services[test.service]), test)
    places = addresses(cast("Mapping[str, RunningService]", services))
    try:
        done = subprocess.run(
            argv(test.run or []), cwd=root, env={**os.environ, **places}, timeout=test.timeout,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the command did not end within {test.timeout:g} s"
    tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-_TAIL:])
    return "" if done.returncode == 0 else f"exit code {done.returncode}; its last lines: {tail}"


def _show(result: CheckResult) -> None:
    mark = console.style("ok  ", "green") if result.outcome == "passed" else console.style("FAIL", "red", "bold")
    console.say(f"{mark} {result.name} ({result.seconds:.2f} s)")
    for line in result.message.splitlines():
        console.say(f"     {line}")
