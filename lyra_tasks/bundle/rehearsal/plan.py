"""What a rehearsal does, as a value: which bundle on which engine, and what somebody would write into `.env`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle.environment import quoted
from lyra_tasks.bundle.manifest import Manifest
from lyra_tasks.config.deployment import publish_variable, secret_variable, stands_as_default
from lyra_tasks.config.models import Configuration, EnvironmentVariable
from lyra_tasks.engine.connect import version_numbers
from lyra_tasks.engine.sandbox.suites import suite_like

_FIRST_PORT = 20000
_OPEN = re.compile(r"(?m)^#?(\w+)=(.*)$")


@dataclass(frozen=True)
class RehearsalFacts:
    """What was found out: the bundle, its `.env.example`, how much memory (bytes) and how many CPUs may be used.

    `users` are those that services run as; `commit` is that of the tree whose checks are made.
    """

    bundle: Path
    manifest: Manifest
    example: str
    users: Mapping[str, str]
    commit: str
    memory: int
    cpus: float


@dataclass(frozen=True)
class RehearsalPlan:
    """A rehearsal; `answers` fill in `.env` but for `{address}` and `{secrets}`, which are known only later.

    `secret_files` are owners by variable; `values` are the services' variables, by which the checks know them.
    """

    facts: RehearsalFacts
    suite: str
    project: str
    answers: Mapping[str, str]
    secret_files: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]


def plan(config: Configuration, facts: RehearsalFacts, values: Mapping[str, Mapping[str, str]]) -> RehearsalPlan:
    """Plan a rehearsal; `values` are those that tests give to the services' variables."""
    known = {match[1] for match in _OPEN.finditer(facts.example)}
    services = {name: service for name, service in config.services.items() if service.promoted}
    answers = {
        key: values[name][key]
        for name, service in services.items()
        for key, variable in service.environment.items()
        if key in known & values[name].keys() and not _left_to_default(variable)
    }
    # `.env` is one for all services: what is filled in for one of them is given to the others, too
    given = {
        name: {key: answers.get(key, value) if name in services else value for key, value in each.items()}
        for name, each in values.items()
    }
    secret_files = {}
    number = _FIRST_PORT
    for name, service in services.items():
        for key in service.secrets:
            variable = secret_variable(name, key)
            answers[variable] = f"{{secrets}}/{variable}"
            secret_files[variable] = facts.users.get(name, "")
        for port in service.ports:
            answers[publish_variable(name, port)] = f"{{address}}:{number}"
            number += 1
    return RehearsalPlan(
        facts=facts,
        suite=suite_like(version_numbers(facts.manifest.proxima.min_engine)),
        project=config.project.name.replace(".", "-"),
        answers=answers,
        secret_files=secret_files,
        values=given,
    )


def filled(plan: RehearsalPlan, address: str, secrets: Path) -> str:
    """The content of `.env`."""
    lines = []
    for key, value in sorted(plan.answers.items()):
        text = value.replace("{address}", address).replace("{secrets}", str(secrets)) if _ours(plan, key) else value
        lines.append(f"{key}={quoted(text)}\n")
    return "".join(lines)


def inherited(plan: RehearsalPlan, environment: Mapping[str, str]) -> dict[str, str]:
    """A shell's variables without those that Compose would obey, or prefer to what stands in `.env`."""
    own = {match[1] for match in _OPEN.finditer(plan.facts.example)}
    return {key: value for key, value in environment.items() if key not in own and not key.startswith("COMPOSE_")}


def _left_to_default(variable: EnvironmentVariable) -> bool:
    """What has a default is left to it, as an operator would: two services may have different ones."""
    return variable.default is not None and variable.test_value is None and stands_as_default(variable.default)


def _ours(plan: RehearsalPlan, key: str) -> bool:
    return key in plan.secret_files or key.endswith("_PUBLISH")
