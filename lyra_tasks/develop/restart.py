"""Restart services of the development environment: their containers keep files, volumes, networks and ports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from lyra_tasks.config.containers import stop_timeout_seconds
from lyra_tasks.engine.objects.containers import (
    find_host_config,
    is_running,
    read_container_state,
    restart_container,
)
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.lab.container_logs import read_last_container_lines
from lyra_tasks.lab.disk import WatchedRoot, start_guard
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.results.development import RestartedService

RESTARTED_EVENT = "restarted"
_STABLE_AFTER_S = 0.3  # a command that fails at once has exited by then
_LOG_TAIL_LINES = 15


def restart_services(work: Workspace, lab: DevLab, names: Sequence[str]) -> tuple[RestartedService, ...]:
    """Restart services at the same time; `work` has the development profile.

    Raises CheckFailedError if one exits right away; the others keep running.
    """
    with ThreadPoolExecutor(max(len(names), 1)) as pool:
        restarted = list(pool.map(partial(_restart_service, work, lab), names))
    work.journal.append(work.run, RESTARTED_EVENT, lab=lab.run, services=sorted(names))
    _record_ports(work, lab, names)
    time.sleep(_STABLE_AFTER_S)
    for name in names:
        _require_running(work, lab, name)
    return tuple(restarted)


def _restart_service(work: Workspace, lab: DevLab, name: str) -> RestartedService:
    started = time.monotonic()
    container, service = lab.services[name].id, work.config.services[name]
    host_config = find_host_config(work.engine, container)
    if host_config is None:
        raise PreconditionError(f"The container of {name} no longer exists", hint="Run `create`")
    was_running = is_running(work.engine, container)
    restart_container(work.engine, container, name, stop_timeout_seconds(service))
    if not was_running and not host_config["ReadonlyRootfs"]:  # who watches its disk use has ended with it
        roots = (WatchedRoot(name, container, service.limits.disk),)
        start_guard(work.engine, work.journal, lab.run, roots)
    return RestartedService(name, round(time.monotonic() - started, 3))


def _record_ports(work: Workspace, lab: DevLab, names: Sequence[str]) -> None:
    """Record the published ports of restarted services as they are, which an engine may have picked anew."""
    services = dict(lab.services)
    for name in names:
        published = read_container_state(work.engine, lab.services[name].id).ports
        ports = {key: published[port] for key, port in work.config.services[name].ports.items() if port in published}
        services[name] = services[name].model_copy(update={"ports": ports or services[name].ports})
    if services != lab.services:
        DevStore(work.paths.state).write(lab.model_copy(update={"services": services}))


def _require_running(work: Workspace, lab: DevLab, name: str) -> None:
    """Raise CheckFailedError, with the end of its log, for a service that has exited right after its start."""
    state = read_container_state(work.engine, lab.services[name].id)
    if not state.running and not (work.config.services[name].oneshot and state.exit_code == 0):
        raise CheckFailedError(
            f"{name} exited with code {state.exit_code}" + (f": {state.error}" if state.error else ""),
            hint="Fix the source; `dev.restart` starts it again",
            details=read_last_container_lines(work, lab, name, _LOG_TAIL_LINES),
        )
