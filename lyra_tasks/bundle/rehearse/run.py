"""Run a rehearsal: start an engine, receive and start the bundle, run the checks, remove everything."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.format.layout import IMAGES_DIRECTORY, RECEIVE_SCRIPT
from lyra_tasks.bundle.rehearse.plan import (
    RehearsalPlan,
    compute_start_timeout,
    remove_compose_variables,
    render_env_file,
)
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import connect_sandbox
from lyra_tasks.engine.objects.compose_services import DeployedService, list_compose_services
from lyra_tasks.engine.objects.containers import read_health_probe
from lyra_tasks.errors import BundleError, CheckFailedError, PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.processes import create_environment, run_captured
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.redaction import redact
from lyra_tasks.results.bundle import Rehearsal

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

RunChecks = Callable[[Mapping[str, DeployedService]], Sequence[CheckResult]]

_RECEIVE_TIMEOUT_S = 1800.0
_COMPOSE_TIMEOUT_S = 300.0
_COMPOSE_END_TIMEOUT_S = 60.0  # Compose ends by itself when its own time is over
_OUTPUT_TAIL_LINES = 15


def run_rehearsal(plan: RehearsalPlan, work: Workspace, run_checks: RunChecks) -> Rehearsal:
    """Run the rehearsal, and remove the engine with everything on it in any case."""
    verify_bundle(plan.facts.bundle.directory)
    state = work.paths.state / "rehearsal"
    with file_lock(work.paths.state / "rehearsal.lock", resource="the rehearsal of this checkout"):
        _remove_sandbox(state)  # of a killed rehearsal
        try:
            state.mkdir(parents=True)
            result = _rehearse(plan, work, state, run_checks)
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


def _rehearse(plan: RehearsalPlan, work: Workspace, state: Path, run_checks: RunChecks) -> Rehearsal:
    """Run all steps on a new engine; the bundle, the engine and the secrets are below `state`."""
    facts, manifest = plan.facts, plan.facts.bundle.manifest
    directory, secrets_directory = state / facts.bundle.directory.name, state / "secrets"
    seconds: dict[str, float] = {}
    with _measure("copy", seconds):  # as to a medium; archives are hard-linked, since nothing changes them
        shutil.copytree(facts.bundle.directory, directory, copy_function=_link_or_copy)
    with _measure("engine", seconds):
        node = sandbox.launch_sandbox(
            state, cache=work.paths.cache, suite=plan.suite, memory=facts.memory, cpus=facts.cpus
        )
    environment = remove_compose_variables(plan, create_environment()) | node.environment()
    with _measure("receive", seconds):
        console.info(f"Receiving the bundle on a throwaway engine of {plan.suite}")
        _receive(directory, environment)
    with _measure("configure", seconds):
        _write_secrets(plan, secrets_directory)
        env_file = directory / "deploy" / ".env"
        env_file.write_text(render_env_file(plan, node.address, secrets_directory))
        env_file.chmod(0o600)
    with _measure("start", seconds):
        engine = connect_sandbox(node, is_own=False)
        _start_services(plan, engine, directory / "deploy", environment, secrets_directory)
        services = list_compose_services(engine, plan.project)
    with _measure("check", seconds):
        if facts.commit != manifest.source.commit:
            console.warn("The checks are those of the current commit, not those of the bundle's commit")
        checks = tuple(run_checks(services))
    return Rehearsal(
        version=manifest.version,
        engine=engine.facts.version,
        store=engine.facts.store,
        services=tuple(sorted(services)),
        passed=bool(checks) and all(check.outcome == "passed" for check in checks),
        checks=checks,
        seconds=seconds,
    )


@contextmanager
def _measure(step: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 3)


def _receive(bundle: Path, environment: Mapping[str, str]) -> None:
    result = _run_command(["sh", str(bundle / RECEIVE_SCRIPT)], environment, bundle.parent, _RECEIVE_TIMEOUT_S)
    if result.returncode:
        error_class = BundleError if result.returncode in {6, 60} else PreconditionError
        raise error_class(
            f"{RECEIVE_SCRIPT} failed with exit code {result.returncode}",
            hint=f"An operator would see the same; `{RECEIVE_SCRIPT} --help` explains the exit codes",
            details=_output_tail(result),
        )


def _write_secrets(plan: RehearsalPlan, directory: Path) -> None:
    """Write random secrets for the users who read them."""
    directory.mkdir(mode=0o711)
    for variable, user in plan.secret_files.items():
        file = directory / variable
        file.write_text(secrets.token_hex(32))
        owner, _, group = user.partition(":")
        file.chmod(0o400 if owner.isdigit() else 0o444)
        if owner.isdigit():
            os.chown(file, int(owner), int(group) if group.isdigit() else int(owner))


def _start_services(
    plan: RehearsalPlan, engine: Engine, directory: Path, environment: Mapping[str, str], secrets_directory: Path
) -> None:
    """Create the containers, then start them, with as much time as their health checks take to fail."""
    command = ["docker", "compose", "up", "--no-start"]
    result = _run_command(command, environment, directory, _COMPOSE_TIMEOUT_S)
    if not result.returncode:
        timeout = math.ceil(compute_start_timeout(plan, _read_patience(plan, engine)))
        command = ["docker", "compose", "up", "--detach", "--wait", "--wait-timeout", str(timeout)]
        result = _run_command(command, environment, directory, timeout + _COMPOSE_END_TIMEOUT_S)
    if not result.returncode:
        return
    log = _run_command(["docker", "compose", "logs", "--tail", "15"], environment, directory, _COMPOSE_END_TIMEOUT_S)
    values = [value for values in plan.service_values.values() for value in values.values() if len(value) >= 8]
    values += [file.read_text(errors="replace") for file in secrets_directory.iterdir()]
    output = (*_output_tail(result), *log.stdout.splitlines())
    raise CheckFailedError(
        "The services do not start on an engine like Proxima's",
        hint="See the logs above, and compare with `test` on the engine of this machine",
        details=tuple(redact("\n".join(output), values).split("\n")),
    )


def _read_patience(plan: RehearsalPlan, engine: Engine) -> dict[str, float]:
    """Return the seconds that the health checks, from the bundle's Compose file or its images, take to fail."""
    services = list_compose_services(engine, plan.project)
    probes = {name: read_health_probe(engine, service.id) for name, service in services.items()}
    return {name: probe.patience for name, probe in probes.items() if probe is not None}


def _run_command(
    command: list[str], environment: Mapping[str, str], directory: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    try:
        return run_captured(command, environment=environment, directory=directory, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(
            f"`{command[0]}` timed out after {timeout:.0f} s", hint="Retry when this machine is less busy"
        ) from error


def _link_or_copy(source: str, target: str) -> None:
    if f"/{IMAGES_DIRECTORY}/" in source:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy(source, target)


def _output_tail(result: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple((result.stdout + result.stderr).splitlines()[-_OUTPUT_TAIL_LINES:])
