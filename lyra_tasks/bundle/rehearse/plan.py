"""Collect the facts of a rehearsal and plan it: which bundles on which engines, with which `.env`."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lyra_tasks.bundle.content.environment import quote_env_value
from lyra_tasks.bundle.format.documents import DescribedService, read_bundle_documents
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.layout import ENV_EXAMPLE_FILE
from lyra_tasks.bundle.format.manifest import Bundle, open_bundle
from lyra_tasks.config.deployment import can_be_compose_default, compose_project, publish_variable, secret_variable
from lyra_tasks.config.models import Configuration, EnvironmentVariable, Service, Test
from lyra_tasks.documents import read_document, translate_failures
from lyra_tasks.engine.client.facts import parse_version_numbers
from lyra_tasks.engine.sandbox.packages import NEWEST_SUITE, find_suite_for_version
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.records.evidence import check_title
from lyra_tasks.suggest import did_you_mean

_FIRST_PORT = 20000
_START_MARGIN_S = 600.0  # to create everything, and for health checks of images
_ENV_LINE = re.compile(r"(?m)^#?(\w+)=(.*)$")


@dataclass(frozen=True)
class RehearsedBundle:
    """A bundle to start, with what its documents say."""

    bundle: Bundle
    env_example: str
    services: Mapping[str, DescribedService]

    @property
    def version(self) -> str:
        """Return the version of the bundle."""
        return self.bundle.manifest.version

    @property
    def variables(self) -> set[str]:
        """Return the variables that `.env.example` lists."""
        return {match[1] for match in _ENV_LINE.finditer(self.env_example)}

    @property
    def publish_variables(self) -> list[str]:
        """Return the variables that say where a port is published."""
        return [publish_variable(name, port.name) for name, service in self.services.items() for port in service.ports]


@dataclass(frozen=True)
class RehearsalFacts:
    """The facts of a rehearsal: the bundle, an older one to upgrade from, and memory (bytes) and CPUs of the engine.

    `commit` is the one whose checks are run.
    """

    newer: RehearsedBundle
    older: RehearsedBundle | None
    commit: str
    memory: int
    cpus: float

    @property
    def bundles(self) -> list[RehearsedBundle]:
        """Return the bundles in the order in which they are started."""
        return [self.older, self.newer] if self.older else [self.newer]


@dataclass(frozen=True)
class RehearsalPlan:
    """A planned rehearsal, on an engine of each of the `suites`.

    `env_values` and `ports` are by variable of `.env`, `secret_files` (contents) by the variable of the path.
    `service_values` are the values of the services' variables, which the checks use. `start_timeouts` are in
    seconds. With an older version, `writing_checks` are run on it before the backup, and `reading_checks`
    on it and after the roll back; `checks` are run on the newer one.
    """

    facts: RehearsalFacts
    suites: tuple[str, ...]
    project: str
    env_values: Mapping[str, str]
    ports: Mapping[str, int]
    secret_files: Mapping[str, str]
    service_values: Mapping[str, Mapping[str, str]]
    start_timeouts: Mapping[str, float]
    checks: tuple[Test, ...]
    writing_checks: tuple[Test, ...] = ()
    reading_checks: tuple[Test, ...] = ()

    @property
    def env_variables(self) -> list[str]:
        """Return the names of all variables that fill in `.env`."""
        return sorted({*self.env_values, *self.ports, *self.secret_files})


def collect_rehearsal_facts(work: Workspace, version: str, older_version: str = "") -> RehearsalFacts:
    """Collect the facts of a rehearsal; raise UsageError for an unknown version."""
    if version == older_version:
        raise UsageError(f"--from {version}: same version", hint="Name an older version, or leave out --from")
    store = BundleStore(work.bundles)
    host_share = work.config.resources.host_share
    proxima = work.config.proxima
    host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory, cpus = int(host_memory * host_share), (os.cpu_count() or 1) * host_share
    return RehearsalFacts(
        newer=_read_bundle(store.find(version)),
        older=_read_bundle(store.find(older_version)) if older_version else None,
        commit=work.git.commit,
        memory=min(memory, proxima.memory or memory),
        cpus=min(cpus, proxima.cpus or cpus),
    )


def _read_bundle(directory: Path) -> RehearsedBundle:
    bundle = open_bundle(directory)
    documents = read_bundle_documents(bundle)
    example = directory / ENV_EXAMPLE_FILE
    if not example.is_file():
        raise BundleError(f"{example}: missing", hint="Run `verify` to see what else is missing")
    with translate_failures(lambda problem: BundleError(f"{example}: {problem}")):
        return RehearsedBundle(bundle, read_document(example).decode(), documents.services)


def plan_rehearsal(
    config: Configuration,
    facts: RehearsalFacts,
    values: Mapping[str, Mapping[str, str]],
    *,
    write: Sequence[str] = (),
    read: Sequence[str] = (),
) -> RehearsalPlan:
    """Plan a rehearsal with the `values` that tests give to the services' variables."""
    documented_variables = {name for bundle in facts.bundles for name in bundle.variables}
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
    if (write or read) and facts.older is None:
        raise UsageError("--write and --read need --from", hint="Add `--from VERSION`")
    publish_variables = dict.fromkeys(name for bundle in facts.bundles for name in bundle.publish_variables)
    suite = find_suite_for_version(parse_version_numbers(facts.newer.bundle.manifest.proxima.min_engine))
    writing_checks = tuple(_select_checks(config, "--write", write))
    return RehearsalPlan(
        facts=facts,
        suites=tuple(dict.fromkeys((suite, NEWEST_SUITE) if facts.older else (suite,))),
        project=compose_project(config.project.name),
        env_values=env_values,
        ports=dict(zip(publish_variables, count(_FIRST_PORT), strict=False)),
        secret_files=_list_secrets(config, facts),
        service_values=values_by_service,
        start_timeouts={
            name: max(service.start_timeout or 0.0, _patience(service)) for name, service in services.items()
        },
        checks=tuple(test for test in config.tests if test not in writing_checks),
        writing_checks=writing_checks,
        reading_checks=tuple(_select_checks(config, "--read", read)),
    )


def _patience(service: Service) -> float:
    """Return the seconds in which the engine judges a health check of the configuration that is never passed."""
    check = service.healthcheck
    if check is None:
        return 0.0
    return (check.start_period or 0.0) + (check.retries + 1) * (check.interval + check.timeout)


def _list_secrets(config: Configuration, facts: RehearsalFacts) -> dict[str, str]:
    """Return the contents of the secret files: test values, or random ones."""
    configured = {
        secret_variable(name, key): secret.test_value
        for name, service in config.services.items()
        for key, secret in service.secrets.items()
    }
    names = dict.fromkeys(
        secret_variable(name, secret.name)
        for bundle in facts.bundles
        for name, service in bundle.services.items()
        for secret in service.secrets
    )
    return {name: configured.get(name) or secrets.token_hex(32) for name in names}


def _select_checks(config: Configuration, option: str, names: Sequence[str]) -> Iterator[Test]:
    for name in names:
        matches = [test for test in config.tests if name in (test.name, check_title(test.name, test.group))]
        if not matches:
            hint = did_you_mean(name, [test.name for test in config.tests], "Name a check of `.lyra.toml`")
            raise UsageError(f"{option} {name}: no check has this name", hint=hint)
        yield from matches


def compute_start_timeout(plan: RehearsalPlan) -> float:
    """Return the seconds in which all services must be healthy or have failed, if they start one after the other."""
    return _START_MARGIN_S + sum(plan.start_timeouts.values())


def answer(plan: RehearsalPlan, address: str, variable: str) -> str:
    """Return the value for a variable of `.env`; one that only the older version has gets a random one."""
    if variable in plan.ports:
        return f"{address}:{plan.ports[variable]}"
    return plan.env_values.get(variable) or secrets.token_hex(16)


def render_choices(plan: RehearsalPlan, bundle: RehearsedBundle, address: str, present: str) -> str:
    """Return lines for `.env`: what an operator may set, and the tests do, unless the `present` lines set it."""
    names = bundle.variables & (plan.env_values.keys() | plan.ports.keys())
    missing = names - set(re.findall(r"(?m)^(\w+)=", present))
    return "".join(f"{name}={quote_env_value(answer(plan, address, name))}\n" for name in sorted(missing))


def remove_compose_variables(plan: RehearsalPlan, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without variables that configure Compose or take precedence over `.env`."""
    variables = {name for bundle in plan.facts.bundles for name in bundle.variables}
    return {key: value for key, value in environment.items() if key not in variables and not key.startswith("COMPOSE_")}


def _keeps_default(variable: EnvironmentVariable) -> bool:
    """Return whether the default applies, as it does for an operator; two services may have different ones."""
    return variable.default is not None and variable.test_value is None and can_be_compose_default(variable.default)
