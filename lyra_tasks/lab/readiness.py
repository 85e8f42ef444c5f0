"""Wait until a service is ready: by its health check with its own timing, as the engine on Proxima would judge it.

The engine judges the checks that are shipped, `exec` and the image's HEALTHCHECK. Its first probe may be half a minute
away, so the same command is also run here until it succeeds once. `http` and `tcp` checks are only run from here.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence

from lyra_tasks.console import format_count
from lyra_tasks.engine.client.exec import exec_command
from lyra_tasks.engine.objects.containers import ContainerState, HealthProbe, read_container_state, read_health_probe
from lyra_tasks.errors import CheckFailedError, LyraError, PreconditionError
from lyra_tasks.lab.http_client import accepts_tcp_connection, is_unreachable, open_http_response
from lyra_tasks.lab.service import LOCAL_LISTENER_HINT, RunningService, exit_error, read_log_tail
from lyra_tasks.ports import join_host_port, port_protocol
from lyra_tasks.redaction import redact
from lyra_tasks.units import format_duration

UNHEALTHY = "unhealthy"
_POLL_INTERVAL_RANGE_S = (0.03, 0.25)
_MIN_PROBE_TIMEOUT_S = 0.1
_PROBE_PAUSE_RANGE_S = (0.15, 1.0)
_SILENT_START_S = 0.05
_OUTPUT_PAUSE_SHARE = 0.3
_ONESHOT_TIMEOUT_S = 60.0
_REACH_TIMEOUT_S = 5.0
_ENGINE_DELAY_S = 10.0  # until the engine, on a busy machine, has made up its mind


def wait_until_ready(service: RunningService) -> None:
    """Wait until the service is healthy or, if it is a one-shot, has exited with 0.

    Raises CheckFailedError if it exits otherwise, is unhealthy, or is not ready in time.
    """
    probe = read_health_probe(service.engine, service.id)
    early_probe = _EarlyProbe(service, probe) if probe is not None and _is_judged_by_engine(service) else None
    timeout = _ready_timeout(service, probe)
    started = time.monotonic()
    while True:
        service.cancellation.raise_if_cancelled()
        state = read_container_state(service.engine, service.id)
        if not state.running:
            if service.planned.service.oneshot and state.exit_code == 0:
                return
            raise exit_error(service, state)
        require_healthy(service, state)
        if _is_ready(service, state, early_probe, started + timeout):
            return
        waited = time.monotonic() - started
        if waited >= timeout:
            raise _timeout_error(service, state, timeout)
        shortest, longest = _POLL_INTERVAL_RANGE_S
        pause = min(longest, max(shortest, waited / 10))
        if early_probe is None:
            time.sleep(pause)
        else:
            early_probe.wait(pause)


def require_reachable(service: RunningService) -> None:
    """Raise PreconditionError if a firewall is between this program and the ports of an engine elsewhere."""
    engine = service.engine
    published = next((number for port, number in service.ports.items() if port_protocol(port) == "tcp"), 0)
    if engine.shares_files or not published or not is_unreachable((engine.host_address, published), _REACH_TIMEOUT_S):
        return
    fix = (
        "Open the ports that Docker publishes (those of net.ipv4.ip_local_port_range) in the firewall of its machine"
        if engine.is_remote
        else "Let containers connect to their host (`sudo ufw allow in on docker0`), or start this one with "
        "`docker run --network host`"
    )
    address = join_host_port(engine.host_address, published)
    raise PreconditionError(f"{service.planned.name} cannot be reached: nothing answers at {address}", hint=fix)


def require_healthy(service: RunningService, state: ContainerState) -> None:
    """Raise CheckFailedError if the engine judges the service by its own health check to be unhealthy."""
    if state.health != UNHEALTHY or service.planned.service.oneshot:
        return
    probe = read_health_probe(service.engine, service.id)
    timing = ""
    if probe:
        times = f"{format_count(probe.retries, 'time')} in a row"
        timing = f" {times}, with a time limit of {format_duration(probe.timeout)}"
    raise CheckFailedError(
        f"{service.planned.name} is unhealthy: its health check failed{timing}{_format_reason(service, state)}",
        hint="Fix the service, or give its health check more time: `--timeout`, `--retries`, `--start-period` of "
        f"HEALTHCHECK, or [services.{service.planned.name}.healthcheck]. See the whole log: {service.log.path}",
        details=read_log_tail(service),
    )


class ProbeSchedule:
    """When to probe a service; times are monotonic seconds, output is measured by the size of its log.

    A probe takes CPU time from a service that is still starting, within the same limit. So the first one waits a moment
    for the service's first line, and a new line makes the next one due sooner: most services tell when they are ready.
    """

    def __init__(self, now: float) -> None:
        self._pause, self._log_size = _PROBE_PAUSE_RANGE_S[0], 0
        self._due_after_output, self._due = now, now + _SILENT_START_S

    def is_due(self, now: float, log_size: int) -> bool:
        """Return whether to begin a probe, after which only newer output counts."""
        is_due = now >= (self._due if log_size == self._log_size else self._due_after_output)
        if is_due:
            self._log_size = log_size
        return is_due

    def postpone(self, now: float) -> None:
        """Pause after a probe that has failed, each time for longer."""
        self._due_after_output, self._due = now + self._pause * _OUTPUT_PAUSE_SHARE, now + self._pause
        self._pause = min(self._pause * 1.5, _PROBE_PAUSE_RANGE_S[1])


class _EarlyProbe:
    """Runs a health check's command in the container until it succeeds once, in a thread and with pauses.

    A probe that exceeds its time limit is the last one: the engine alone judges from then on.
    """

    def __init__(self, service: RunningService, probe: HealthProbe) -> None:
        self._service, self._probe = service, probe
        self._schedule, self._started = ProbeSchedule(time.monotonic()), 0.0
        self._thread: threading.Thread | None = None
        self._exit_code: int | None = None
        self._seconds = 0.0

    def wait(self, timeout: float) -> None:
        """Wait until the probe that runs has ended, at most for `timeout` seconds."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout)
        else:
            time.sleep(timeout)

    def has_succeeded(self) -> bool:
        """Return whether the last probe has succeeded in time; start the next one if it is due."""
        now = time.monotonic()
        if self._thread is None:
            if self._schedule.is_due(now, self._service.log.path.stat().st_size):
                self._start(now)
            return False
        if self._thread.is_alive():
            return False
        if self._exit_code == 0 and self._seconds <= self._probe.timeout:
            return True
        if self._seconds <= self._probe.timeout:
            self._thread = None
            self._schedule.postpone(now)
        return False

    def _start(self, now: float) -> None:
        self._started = now
        self._thread = threading.Thread(target=self._run, args=(self._probe.command,), daemon=True)
        self._thread.start()

    def _run(self, command: Sequence[str]) -> None:
        try:
            self._exit_code, _ = exec_command(
                self._service.engine, self._service.id, command, timeout=self._probe.timeout
            )
        except (LyraError, TimeoutError):
            self._exit_code = None  # the container has exited, or has no such program: the engine will say so
        self._seconds = time.monotonic() - self._started


def _is_judged_by_engine(service: RunningService) -> bool:
    healthcheck = service.planned.service.healthcheck
    return not service.planned.service.oneshot and (healthcheck is None or not healthcheck.is_polled)


def _is_ready(service: RunningService, state: ContainerState, early_probe: _EarlyProbe | None, deadline: float) -> bool:
    target, healthcheck = service.check_target(), service.planned.service.healthcheck
    seconds_left = max(_MIN_PROBE_TIMEOUT_S, deadline - time.monotonic())
    if service.planned.service.oneshot:
        return False
    if healthcheck is not None and healthcheck.http is not None:
        method, _, path = healthcheck.http.partition(" ")
        timeout = min(healthcheck.timeout, seconds_left)
        try:
            with open_http_response(target.http_address(), method, path, timeout) as response:
                return 200 <= response.status < 400
        except (OSError, http.client.HTTPException):
            return False
    if healthcheck is not None and healthcheck.tcp is not None:
        return accepts_tcp_connection(
            target.address(healthcheck.tcp),
            min(healthcheck.timeout, seconds_left),
            may_be_proxy=service.engine.may_proxy_ports,
        )
    return state.health in {"", "healthy"} or (early_probe is not None and early_probe.has_succeeded())


def _ready_timeout(service: RunningService, probe: HealthProbe | None) -> float:
    """Return how long to wait: as configured, else until the health check must have failed for good."""
    settings = service.planned.service
    if settings.start_timeout is not None:
        return settings.start_timeout
    if settings.oneshot:
        return _ONESHOT_TIMEOUT_S
    if settings.healthcheck is not None and settings.healthcheck.is_polled:
        check = settings.healthcheck
        return (check.start_period or 0.0) + check.retries * check.interval + check.timeout
    if probe is None:
        return _ENGINE_DELAY_S
    return probe.patience + _ENGINE_DELAY_S


def _timeout_error(service: RunningService, state: ContainerState, timeout: float) -> CheckFailedError:
    name, settings = service.planned.name, service.planned.service
    if settings.oneshot:
        message = f"{name} did not end within {timeout:g} s"
    else:
        reason = _format_reason(service, state)
        if settings.healthcheck is not None and settings.healthcheck.is_polled:
            reason = f": nothing answers its health check at the port, {LOCAL_LISTENER_HINT}"
        message = f"{name} was not ready within {timeout:g} s{reason}"
    return CheckFailedError(
        message,
        hint=f"If it needs more time, set `start_timeout` in [services.{name}]. See the whole log: {service.log.path}",
        details=read_log_tail(service),
    )


def _format_reason(service: RunningService, state: ContainerState) -> str:
    return f": {redact(state.health_log, service.log.redacted_values)}" if state.health_log else ""
