"""Run the project's checks against services that no lab has started: a received bundle that is running."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lyra_tasks.checks.commands import build_address_variables, check_command
from lyra_tasks.checks.kinds import check_service, evaluate_check
from lyra_tasks.checks.results import print_check_result
from lyra_tasks.config.models import Configuration, Service, Test
from lyra_tasks.engine.objects.compose_services import DeployedService
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.facts import resolve_test_environment
from lyra_tasks.lab.service import CheckTarget
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.rules.secrets import expand_secret_values

_SUPPORTED_KINDS = frozenset({"http", "exec", "tcp", "log", "run"})
_MIN_READY_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.5


def collect_test_values(config: Configuration) -> dict[str, dict[str, str]]:
    """Return, by service, the environment that checks refer to, with random values for secrets without a value."""
    return {name: resolve_test_environment(name, service) for name, service in config.services.items()}


def check_deployed_services(
    services: Mapping[str, DeployedService],
    config: Configuration,
    environments: Mapping[str, Mapping[str, str]],
    root: Path,
) -> list[CheckResult]:
    """Run every check of these services; a check that cannot be run yet is retried for a while.

    Checks of other services and of unsupported kinds are left out. `${NAME}` in a check stands for a value in
    `environments`; values of secrets are redacted from all messages.
    """
    configured = {name: config.services[name] for name in services if name in config.services}
    secret_values = expand_secret_values(
        environments[name][key]
        for name, service in configured.items()
        for key, variable in service.environment.items()
        if variable.secret
    )
    targets = {
        name: CheckTarget(
            name,
            service,
            environments[name],
            secret_values,
            services[name].engine,
            services[name].id,
            services[name].ports,
            services[name].open_log,
            Cancellation(),
        )
        for name, service in configured.items()
    }
    results = []
    for test in config.tests:
        if test.kind in _SUPPORTED_KINDS and (test.service is None or test.service in targets):
            result = _run_check(test, targets, root, secret_values)
            print_check_result(result)
            results.append(result)
    return results


def ready_timeout(service: Service) -> float:
    """Return the seconds in which a running service must answer; its `http` or `tcp` health check is not shipped."""
    check = service.healthcheck
    patience = 0.0
    if check is not None and (check.http is not None or check.tcp is not None):
        patience = (check.start_period or 0.0) + check.retries * check.interval + check.timeout
    return max(_MIN_READY_TIMEOUT_S, service.start_timeout or patience)


def _run_check(test: Test, targets: Mapping[str, CheckTarget], root: Path, secret_values: Sequence[str]) -> CheckResult:
    started = time.monotonic()
    waited_for = [targets[test.service]] if test.service is not None else list(targets.values())
    timeout = max((ready_timeout(target.service) for target in waited_for), default=_MIN_READY_TIMEOUT_S)
    while True:
        result = evaluate_check(test, lambda: _find_problem(test, targets, root, secret_values), secret_values)
        seconds = time.monotonic() - started
        if result.outcome != "error" or seconds > timeout:
            return result.model_copy(update={"seconds": round(seconds, 3)})
        time.sleep(_POLL_INTERVAL_S)


def _find_problem(test: Test, targets: Mapping[str, CheckTarget], root: Path, secret_values: Sequence[str]) -> str:
    if test.service is not None:
        return check_service(targets[test.service], test)
    return check_command(test, root, build_address_variables(targets.values()), secret_values, Cancellation())
