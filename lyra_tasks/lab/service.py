"""A running service: its addresses, its readiness, and the error for one that has exited."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lyra_tasks.config.service_models import Service
from lyra_tasks.engine.client.monitoring import LogFollower, StatsSampler
from lyra_tasks.engine.objects.containers import ContainerState, read_container_state
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.http_client import accepts_tcp_connection, open_http_response
from lyra_tasks.lab.plan import PlannedService
from lyra_tasks.ports import ContainerPort
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_POLL_INTERVAL_RANGE_S = (0.03, 0.25)
_LOG_TAIL_LINES = 15
_IMAGE_HEALTHCHECK_TIMEOUT_S = 60.0
_OOM_REPORT_TIMEOUT_S = 1.0
_MIN_PROBE_TIMEOUT_S = 0.1


@dataclass(frozen=True)
class CheckTarget:
    """A service that checks are run against; `ports` maps container ports to published ports."""

    name: str
    service: Service
    environment: Mapping[str, str]
    secret_values: tuple[str, ...]
    engine: Engine
    container_id: str
    ports: Mapping[ContainerPort, int]
    read_log: Callable[[], str]
    cancellation: Cancellation

    def address(self, port: int | str) -> tuple[str, int]:
        """Return the host and port at which a container port, given by number or name, can be reached from here.

        Raises PreconditionError if the container had already exited, so that the port is not published.
        """
        published_port = self.ports.get(self.service.resolve_port(port) or 0)
        if published_port is None:
            raise PreconditionError(f"{self.name} does not publish port {port}: the container had exited")
        return self.engine.host_address, published_port

    def http_address(self) -> tuple[str, int]:
        """Return the address of the HTTP port; the validation of the configuration ensures that there is one."""
        return self.address(self.service.http_port or 0)


@dataclass
class RunningService:
    """A started container with its followers; `ports` maps container ports to published ports."""

    planned: PlannedService
    engine: Engine
    id: str
    log: LogFollower
    stats: StatsSampler
    cancellation: Cancellation
    ports: Mapping[ContainerPort, int] = field(default_factory=dict)
    started_at: str = ""
    final_state: ContainerState | None = None

    def check_target(self) -> CheckTarget:
        """Return the service as the target of checks, with its current ports."""
        return CheckTarget(
            self.planned.name,
            self.planned.service,
            self.planned.environment,
            self.log.redacted_values,
            self.engine,
            self.id,
            self.ports,
            self.log.text,
            self.cancellation,
        )


def wait_until_ready(service: RunningService) -> None:
    """Wait until the service is healthy or, if it is a one-shot, has exited with 0.

    Raises CheckFailedError if it exits otherwise, or is not ready within the timeout of its health check.
    """
    timeout = _ready_timeout(service)
    started = time.monotonic()
    deadline = started + timeout
    while True:
        service.cancellation.raise_if_cancelled()
        state = read_container_state(service.engine, service.id)
        if not state.running:
            if service.planned.service.oneshot and state.exit_code == 0:
                return
            raise exit_error(service, state)
        if _is_ready(service, state, deadline):
            return
        waited = time.monotonic() - started
        if waited >= timeout:
            reason = f": {redact(state.health_log, service.log.redacted_values)}" if state.health_log else ""
            raise CheckFailedError(
                f"{service.planned.name} was not ready within {timeout:g} s{reason}",
                hint=f"See the whole log: {service.log.path}",
                details=_read_log_tail(service),
            )
        shortest, longest = _POLL_INTERVAL_RANGE_S
        time.sleep(min(longest, max(shortest, waited / 10)))


def exit_error(service: RunningService, state: ContainerState) -> CheckFailedError:
    """Return the error for a container that exited: exit code, whether it ran out of memory, the end of its log."""
    service.log.finish(2.0)
    state = _await_oom_report(service, state)
    name = service.planned.name
    if state.oom_killed or state.exit_code == 137:
        message = f"{name} was killed (exit code 137)"
        if state.oom_killed:
            message += f": out of memory, its limit is {service.planned.service.limits.memory // 1024**2} MiB"
        hint = f"Raise [services.{name}.limits] memory, or find what uses it"
    else:
        message = f"{name} exited with code {state.exit_code}" + (f": {state.error}" if state.error else "")
        hint = f"See the whole log: {service.log.path}"
    return CheckFailedError(message, hint=hint, details=_read_log_tail(service))


def _await_oom_report(service: RunningService, state: ContainerState) -> ContainerState:
    """Read the state of a killed container again: the engine may report "out of memory" a moment after the exit."""
    deadline = time.monotonic() + _OOM_REPORT_TIMEOUT_S
    while state.exit_code == 137 and not state.oom_killed and time.monotonic() < deadline:
        time.sleep(0.05)
        state = read_container_state(service.engine, service.id)
    return state


def _read_log_tail(service: RunningService) -> tuple[str, ...]:
    return tuple(service.log.lines()[-_LOG_TAIL_LINES:])


def _is_ready(service: RunningService, state: ContainerState, deadline: float) -> bool:
    target, healthcheck = service.check_target(), service.planned.service.healthcheck
    probe_timeout = max(_MIN_PROBE_TIMEOUT_S, deadline - time.monotonic())
    if healthcheck is not None:
        probe_timeout = min(healthcheck.timeout, probe_timeout)
    if service.planned.service.oneshot:
        return False
    if healthcheck is not None and healthcheck.http is not None:
        method, _, path = healthcheck.http.partition(" ")
        try:
            with open_http_response(target.http_address(), method, path, probe_timeout) as response:
                return 200 <= response.status < 400
        except (OSError, http.client.HTTPException):
            return False
    if healthcheck is not None and healthcheck.tcp is not None:
        return accepts_tcp_connection(target.address(healthcheck.tcp), probe_timeout)
    return state.health in {"", "healthy"}


def _ready_timeout(service: RunningService) -> float:
    healthcheck = service.planned.service.healthcheck
    if healthcheck is None:
        return _IMAGE_HEALTHCHECK_TIMEOUT_S
    return (healthcheck.start_period or 0.0) + healthcheck.retries * healthcheck.interval + healthcheck.timeout
