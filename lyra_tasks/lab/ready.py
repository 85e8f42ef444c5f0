"""When is a service ready, and what is said of one that never will be."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine import objects
from lyra_tasks.errors import VerdictError
from lyra_tasks.rules.declared import without

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.lab.running import RunningService

_PAUSES = (0.03, 0.25)  # seconds between two looks, at least and at most
_TAIL = 15
_IMAGE_CHECK_PATIENCE = 60.0
_TOLD_AFTER = 1.0


def wait_until_ready(engine: Engine, service: RunningService) -> None:
    """Return when the service's health check says so (a one-shot: when it has ended with 0).

    Raises VerdictError at once for a container that died, and after the check's patience for one that is not ready.
    """
    patience = _patience(service)
    began = time.monotonic()
    while True:
        service.halt.pass_by()
        now = objects.state(engine, service.id)
        if not now.running:
            if service.planned.service.oneshot and now.exit_code == 0:
                return
            raise death(service, now)
        if _ready(service, now):
            return
        waited = time.monotonic() - began
        if waited >= patience:
            said = f": {without(now.health_log, service.planned.masked)}" if now.health_log else ""
            raise VerdictError(
                f"{service.planned.name} was not ready within {patience:g} s{said}",
                hint=f"its whole log is in {service.log.path}",
                details=log_tail(service),
            )
        least, most = _PAUSES
        time.sleep(min(most, max(least, waited / 10)))


def death(service: RunningService, now: objects.ContainerState) -> VerdictError:
    """What is said of a container that ended: exit code, out of memory or not, the end of its log."""
    service.log.finish(2.0)
    now = _with_cause(service, now)
    name = service.planned.name
    if now.oom_killed or now.exit_code == 137:
        limit = service.planned.service.limits.memory
        message = f"{name} was killed (exit code 137): it ran out of memory, its limit is {limit // 1024**2}m"
        if not now.oom_killed:
            message = f"{name} was killed (exit code 137)"
        hint = f"raise [services.{name}.limits] memory, or find what uses it"
    else:
        message = f"{name} ended with exit code {now.exit_code}" + (f": {now.error}" if now.error else "")
        hint = f"its whole log is in {service.log.path}"
    return VerdictError(message, hint=hint, details=log_tail(service))


def _with_cause(service: RunningService, now: objects.ContainerState) -> objects.ContainerState:
    """The state once more where it was killed: that memory ran out may be told a moment after the end."""
    until = time.monotonic() + _TOLD_AFTER
    while now.exit_code == 137 and not now.oom_killed and time.monotonic() < until:
        time.sleep(0.05)
        now = objects.state(service.engine, service.id)
    return now


def log_tail(service: RunningService) -> tuple[str, ...]:
    """The last lines that the service printed."""
    return tuple(service.log.lines()[-_TAIL:])


@contextmanager
def http_answer(
    address: tuple[str, int], method: str, path: str, timeout: float, **more: Any
) -> Iterator[http.client.HTTPResponse]:
    """One HTTP request from this machine, over a connection of its own.

    OSError or HTTPException if there is no answer.
    """
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body=more.get("body"), headers=more.get("headers") or {})
        yield connection.getresponse()
    finally:
        connection.close()


def tcp_answers(address: tuple[str, int], timeout: float) -> bool:
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


def _ready(service: RunningService, now: objects.ContainerState) -> bool:
    planned = service.planned
    check = planned.service.healthcheck
    if planned.service.oneshot:
        return False
    if check is not None and check.http is not None:
        method, _, path = check.http.partition(" ")
        try:
            with http_answer(service.http_address(), method, path, check.timeout) as answer:
                return 200 <= answer.status < 400
        except (OSError, http.client.HTTPException):
            return False
    if check is not None and check.tcp is not None:
        return tcp_answers(service.address(check.tcp), check.timeout)
    return now.health in {"", "healthy"}


def _patience(service: RunningService) -> float:
    check = service.planned.service.healthcheck
    if check is None:
        return _IMAGE_CHECK_PATIENCE
    return (check.start_period or 0.0) + check.retries * check.interval + check.timeout
