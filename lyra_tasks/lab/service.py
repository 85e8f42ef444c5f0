"""When is a service ready, and what is said of one that never will be."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.objects.containers import ContainerState, read_container_state
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.rules.secrets import redact

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.lab.lab import RunningService

_POLL_INTERVAL_RANGE_S = (0.03, 0.25)  # seconds between two looks, at least and at most
_LOG_TAIL_LINES = 15
_IMAGE_HEALTHCHECK_TIMEOUT_S = 60.0
_OOM_REPORT_TIMEOUT_S = 1.0


def wait_until_ready(engine: Engine, service: RunningService) -> None:
    """Return when the service's health check says so (a one-shot: when it has ended with 0).

    Raises VerdictError at once for a container that died, and after the check's patience for one that is not ready.
    """
    timeout = _ready_timeout(service)
    started = time.monotonic()
    while True:
        service.cancellation.raise_if_cancelled()
        container_state = read_container_state(engine, service.id)
        if not container_state.running:
            if service.planned.service.oneshot and container_state.exit_code == 0:
                return
            raise exit_error(service, container_state)
        if _is_ready(service, container_state):
            return
        waited = time.monotonic() - started
        if waited >= timeout:
            reason = (
                f": {redact(container_state.health_log, service.planned.secret_values)}"
                if container_state.health_log
                else ""
            )
            raise CheckFailedError(
                f"{service.planned.name} was not ready within {timeout:g} s{reason}",
                hint=f"its whole log is in {service.log.path}",
                details=read_log_tail(service),
            )
        shortest, longest = _POLL_INTERVAL_RANGE_S
        time.sleep(min(longest, max(shortest, waited / 10)))


def exit_error(service: RunningService, container_state: ContainerState) -> CheckFailedError:
    """What is said of a container that ended: exit code, out of memory or not, the end of its log."""
    service.log.finish(2.0)
    container_state = _await_oom_report(service, container_state)
    name = service.planned.name
    if container_state.oom_killed or container_state.exit_code == 137:
        limit = service.planned.service.limits.memory
        message = f"{name} was killed (exit code 137): it ran out of memory, its limit is {limit // 1024**2}m"
        if not container_state.oom_killed:
            message = f"{name} was killed (exit code 137)"
        hint = f"raise [services.{name}.limits] memory, or find what uses it"
    else:
        message = f"{name} ended with exit code {container_state.exit_code}" + (
            f": {container_state.error}" if container_state.error else ""
        )
        hint = f"its whole log is in {service.log.path}"
    return CheckFailedError(message, hint=hint, details=read_log_tail(service))


def _await_oom_report(service: RunningService, container_state: ContainerState) -> ContainerState:
    """The state once more where it was killed: that memory ran out may be told a moment after the end."""
    deadline = time.monotonic() + _OOM_REPORT_TIMEOUT_S
    while container_state.exit_code == 137 and not container_state.oom_killed and time.monotonic() < deadline:
        time.sleep(0.05)
        container_state = read_container_state(service.engine, service.id)
    return container_state


def read_log_tail(service: RunningService) -> tuple[str, ...]:
    """The last lines that the service printed."""
    return tuple(service.log.lines()[-_LOG_TAIL_LINES:])


@contextmanager
def open_http_response(
    address: tuple[str, int], method: str, path: str, timeout: float, **options: Any
) -> Iterator[http.client.HTTPResponse]:
    """One HTTP request from this machine, over a connection of its own.

    OSError or HTTPException if there is no answer.
    """
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body=options.get("body"), headers=options.get("headers") or {})
        yield connection.getresponse()
    finally:
        connection.close()


def accepts_tcp_connection(address: tuple[str, int], timeout: float) -> bool:
    """Whether a TCP connection is accepted and stays open.

    The engine's own forwarder accepts for a port that nobody listens on, and closes at once.
    """
    try:
        with socket.create_connection(address, timeout=timeout) as connection:
            connection.settimeout(0.2)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True
    except OSError:
        return False


def _is_ready(service: RunningService, container_state: ContainerState) -> bool:
    planned = service.planned
    healthcheck = planned.service.healthcheck
    if planned.service.oneshot:
        return False
    if healthcheck is not None and healthcheck.http is not None:
        method, _, path = healthcheck.http.partition(" ")
        try:
            with open_http_response(service.http_address(), method, path, healthcheck.timeout) as response:
                return 200 <= response.status < 400
        except (OSError, http.client.HTTPException):
            return False
    if healthcheck is not None and healthcheck.tcp is not None:
        return accepts_tcp_connection(service.address(healthcheck.tcp), healthcheck.timeout)
    return container_state.health in {"", "healthy"}


def _ready_timeout(service: RunningService) -> float:
    healthcheck = service.planned.service.healthcheck
    if healthcheck is None:
        return _IMAGE_HEALTHCHECK_TIMEOUT_S
    return (healthcheck.start_period or 0.0) + healthcheck.retries * healthcheck.interval + healthcheck.timeout
