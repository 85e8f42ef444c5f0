"""A running service: its addresses, and the error for one that has exited."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lyra_tasks.config.service_models import Service
from lyra_tasks.engine.client.monitoring import LogFollower, StatsSampler, was_kill_requested
from lyra_tasks.engine.objects.containers import ContainerState, read_container_state
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.plan import PlannedService
from lyra_tasks.ports import ContainerPort
from lyra_tasks.records.service_logs import LogReader

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

LOCAL_LISTENER_HINT = "or only on 127.0.0.1 inside the container: listen on 0.0.0.0"
_KILLED_EXIT_CODE = 137
_LOG_TAIL_LINES = 15
_OOM_REPORT_TIMEOUT_S = 1.0


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
    open_log: Callable[[], LogReader]
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
    disk_error: CheckFailedError | None = None

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
            self.log.open_reader,
            self.cancellation,
        )


def exit_error(service: RunningService, state: ContainerState) -> CheckFailedError:
    """Return the error for a container that exited: exit code, whether it ran out of memory, the end of its log."""
    service.log.finish(2.0)
    if service.disk_error is not None:
        return service.disk_error
    state = _await_oom_report(service, state)
    name = service.planned.name
    if state.oom_killed or state.exit_code == _KILLED_EXIT_CODE:
        message = f"{name} was killed (exit code {state.exit_code}): {_describe_kill(service, state)}"
        hint = f"Raise [services.{name}.limits] memory, or find what uses it"
    else:
        message = f"{name} exited with code {state.exit_code}" + (f": {state.error}" if state.error else "")
        hint = f"See the whole log: {service.log.path}"
    return CheckFailedError(message, hint=hint, details=read_log_tail(service))


def _await_oom_report(service: RunningService, state: ContainerState) -> ContainerState:
    """Read the state of a killed container again: the engine may report "out of memory" a moment after the exit."""
    deadline = time.monotonic() + _OOM_REPORT_TIMEOUT_S
    while state.exit_code == _KILLED_EXIT_CODE and not state.oom_killed and time.monotonic() < deadline:
        time.sleep(0.05)
        state = read_container_state(service.engine, service.id)
    return state


def _describe_kill(service: RunningService, state: ContainerState) -> str:
    """Return who killed a container.

    The engine starts to watch for "out of memory" a moment after the container has started: it misses what happens in
    between. A kill that nobody has asked the engine for comes from the kernel.
    """
    limit = f"its limit is {service.planned.service.limits.memory // 1024**2} MiB"
    if state.oom_killed:
        return f"out of memory, {limit}"
    if was_kill_requested(service.engine, service.id, state.finished_at):
        return "a request to the engine, such as `docker kill`"
    return f"most likely out of memory, {limit}"


def read_log_tail(service: RunningService) -> tuple[str, ...]:
    """Return the last lines of the service's log."""
    return tuple(service.log.last_lines(_LOG_TAIL_LINES))
