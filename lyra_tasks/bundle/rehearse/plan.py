"""Collect the facts of a rehearsal and plan it: which bundle on which engine, with which `.env`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lyra_tasks.bundle.content.environment import quote_env_value
from lyra_tasks.bundle.format.documents import read_bundle_documents
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.layout import ENV_EXAMPLE_FILE
from lyra_tasks.bundle.format.manifest import Bundle, open_bundle
from lyra_tasks.config.deployment import can_be_compose_default, compose_project, publish_variable, secret_variable
from lyra_tasks.config.models import Configuration, EnvironmentVariable
from lyra_tasks.documents import read_document, translate_failures
from lyra_tasks.engine.client.facts import parse_version_numbers
from lyra_tasks.engine.sandbox.packages import find_suite_for_version
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import BundleError

_FIRST_PORT = 20000
_START_MARGIN_S = 300.0  # to create everything, and for services without a health check
_ENV_LINE = re.compile(r"(?m)^#?(\w+)=(.*)$")


@dataclass(frozen=True)
class RehearsalFacts:
    """The facts of a rehearsal: the bundle, the users by service, and the memory (bytes) and CPUs of the engine.

    `commit` is the one whose checks are run.
    """

    bundle: Bundle
    env_example: str
    users: Mapping[str, str]
    commit: str
    memory: int
    cpus: float


@dataclass(frozen=True)
class RehearsalPlan:
    """A planned rehearsal.

    `env_values`, `ports` and `secret_files` (their owners) are by variable of `.env`. `service_values` are the values
    of the services' variables, which the checks use. `start_timeouts`, in seconds, are what `.lyra.toml` sets.
    """

    facts: RehearsalFacts
    suite: str
    project: str
    env_values: Mapping[str, str]
    ports: Mapping[str, int]
    secret_files: Mapping[str, str]
    service_values: Mapping[str, Mapping[str, str]]
    start_timeouts: Mapping[str, float]

    @property
    def env_variables(self) -> list[str]:
        """Return the names of all variables that fill in `.env`."""
        return sorted({*self.env_values, *self.ports, *self.secret_files})


def collect_rehearsal_facts(work: Workspace, version: str) -> RehearsalFacts:
    """Collect the facts of a rehearsal; raise UsageError for an unknown version."""
    bundle = open_bundle(BundleStore(work.bundles).find(version))
    documents = read_bundle_documents(bundle)
    example = bundle.directory / ENV_EXAMPLE_FILE
    if not example.is_file():
        raise BundleError(f"{example}: missing", hint="Run `verify` to see what else is missing")
    host_share = work.config.resources.host_share
    proxima = work.config.proxima
    host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory, cpus = int(host_memory * host_share), (os.cpu_count() or 1) * host_share
    return RehearsalFacts(
        bundle=bundle,
        env_example=read_example(example),
        users={name: service.user for name, service in documents.services.items()},
        commit=work.git.commit,
        memory=min(memory, proxima.memory or memory),
        cpus=min(cpus, proxima.cpus or cpus),
    )


def read_example(path: Path) -> str:
    """Return the text of `.env.example`; raise BundleError if it is damaged."""
    with translate_failures(lambda problem: BundleError(f"{path}: {problem}")):
        return read_document(path).decode()


def plan_rehearsal(
    config: Configuration, facts: RehearsalFacts, values: Mapping[str, Mapping[str, str]]
) -> RehearsalPlan:
    """Plan a rehearsal with the `values` that tests give to the services' variables."""
    documented_variables = {match[1] for match in _ENV_LINE.finditer(facts.env_example)}
    services = {name: service for name, service in config.services.items() if service.is_promoted}
    env_values = {
        key: values[name][key]
        for name, service in services.items()
        for key, variable in service.environment.items()
        if key in documented_variables & values[name].keys() and not _keeps_default(variable)
    }
    # All services share `.env`, so that a value for one of them also applies to the others.
    values_by_service = {
        name: {key: env_values.get(key, value) if name in services else value for key, value in service_values.items()}
        for name, service_values in values.items()
    }
    publish_variables = [publish_variable(name, port) for name, service in services.items() for port in service.ports]
    return RehearsalPlan(
        facts=facts,
        suite=find_suite_for_version(parse_version_numbers(facts.bundle.manifest.proxima.min_engine)),
        project=compose_project(config.project.name),
        env_values=env_values,
        ports=dict(zip(publish_variables, count(_FIRST_PORT), strict=False)),
        secret_files={
            secret_variable(name, key): facts.users.get(name, "")
            for name, service in services.items()
            for key in service.secrets
        },
        service_values=values_by_service,
        start_timeouts={name: service.start_timeout for name, service in services.items() if service.start_timeout},
    )


def compute_start_timeout(plan: RehearsalPlan, patience: Mapping[str, float]) -> float:
    """Return the seconds in which all services must be healthy or have failed, if they start one after the other.

    `patience` are the seconds, by service, in which the engine judges the health check of the received container.
    """
    names = patience.keys() | plan.start_timeouts.keys()
    waits = (max(patience.get(name, 0.0), plan.start_timeouts.get(name, 0.0)) for name in names)
    return _START_MARGIN_S + sum(waits)


def render_env_file(plan: RehearsalPlan, address: str, secrets_directory: Path) -> str:
    """Return the content of `.env`."""
    values = {
        **plan.env_values,
        **{variable: f"{address}:{port}" for variable, port in plan.ports.items()},
        **{variable: str(secrets_directory / variable) for variable in plan.secret_files},
    }
    return "".join(f"{variable}={quote_env_value(values[variable])}\n" for variable in plan.env_variables)


def remove_compose_variables(plan: RehearsalPlan, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without variables that configure Compose or take precedence over `.env`."""
    env_file_variables = {match[1] for match in _ENV_LINE.finditer(plan.facts.env_example)}
    return {
        key: value
        for key, value in environment.items()
        if key not in env_file_variables and not key.startswith("COMPOSE_")
    }


def _keeps_default(variable: EnvironmentVariable) -> bool:
    """Return whether the default applies, as it does for an operator; two services may have different ones."""
    return variable.default is not None and variable.test_value is None and can_be_compose_default(variable.default)
