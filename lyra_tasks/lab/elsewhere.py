"""The project's checks against services that no lab has started: a bundle that was received and is running."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lyra_tasks.config.models import Configuration, Service, Test
from lyra_tasks.config.services import argv
from lyra_tasks.engine.deployed import DeployedService
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.checks import ask
from lyra_tasks.lab.facts import test_environment
from lyra_tasks.lab.halt import Halt
from lyra_tasks.lab.host_check import addresses, verdict
from lyra_tasks.lab.plan import blotted
from lyra_tasks.lab.programs import run_program
from lyra_tasks.lab.rounds import say
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.rules.declared import without

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.lab.running import RunningService

KINDS = frozenset({"http", "exec", "tcp", "log", "run"})
_PATIENCE = 30.0  # seconds until a service that says nothing of its health answers
_POLL = 0.5


@dataclass(frozen=True)
class _Log:
    service: DeployedService

    def text(self) -> str:
        return self.service.log()


@dataclass(frozen=True)
class _Planned:
    service: Service
    environment: Mapping[str, str]
    masked: tuple[str, ...]


@dataclass(frozen=True)
class _Elsewhere:
    """What checks ask of a service, whoever started it."""

    planned: _Planned
    deployed: DeployedService
    log: _Log
    halt: Halt = field(default_factory=Halt)

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
    secrets = blotted(
        environments[name][key]
        for name in services
        if name in config.services
        for key, variable in config.services[name].environment.items()
        if variable.secret
    )
    known = {
        name: _Elsewhere(_Planned(config.services[name], environments[name], secrets), each, _Log(each))
        for name, each in services.items()
        if name in config.services
    }
    results = []
    for test in config.tests:
        if test.kind in KINDS and (test.service is None or test.service in known):
            result = _tried(test, known, root, secrets)
            say(result)
            results.append(result)
    return results


def _tried(test: Test, services: Mapping[str, _Elsewhere], root: Path, secrets: Sequence[str]) -> CheckResult:
    began = time.monotonic()
    while True:
        outcome: Literal["passed", "failed", "error"]
        try:
            problem = _problem(test, services, root, secrets)
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
                message=without(problem, secrets),
                seconds=round(time.monotonic() - began, 3),
            )
        time.sleep(_POLL)


def _problem(test: Test, services: Mapping[str, _Elsewhere], root: Path, secrets: Sequence[str]) -> str:
    if test.service is not None:
        return ask(cast("RunningService", services[test.service]), test)
    places = addresses(cast("Mapping[str, RunningService]", services))
    ended = run_program(argv(test.run or []), root, places, timeout=test.patience, halt=Halt())
    return verdict(ended.without(secrets), test)
