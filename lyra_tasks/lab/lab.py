"""A lab, from the creation of its networks, volumes and containers to their removal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lyra_tasks import console
from lyra_tasks.engine.client.monitoring import LogFollower, StatsSampler, wait_until
from lyra_tasks.engine.objects.containers import (
    ContainerState,
    connect_to_network,
    create_containers,
    create_networks,
    create_volumes,
    kill_containers,
    put_files,
    read_container_state,
    read_host_config,
    start_container,
)
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.engine.objects.removal import remove_run
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.admission import require_enforced_limits, require_limits
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.disk import DiskWatch, WatchedRoot, list_writable_roots, start_guard
from lyra_tasks.lab.plan import LabPlan
from lyra_tasks.lab.readiness import require_healthy, require_reachable, wait_until_ready
from lyra_tasks.lab.service import RunningService, exit_error
from lyra_tasks.records.evidence import ServiceEvent, create_service_event
from lyra_tasks.rules.finding import RuleCheck
from lyra_tasks.rules.services import check_container

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

# The holder itself needs no CPU, but with a twentieth of a core it starts 0.3 s later, and removing files from a source
# volume (a process in the holder) takes 0.5 s longer.
_HOLDER_NANO_CPUS = 200_000_000
_HOLDER_MEMORY_BYTES = 16 * 1024**2
_EXIT_STATUS_TIMEOUT_S = 10.0

T = TypeVar("T")


@dataclass
class Lab:
    """Networks, volumes and containers on an engine; `holder` is the container that keeps the volumes mounted."""

    plan: LabPlan
    engine: Engine
    owner: Owner
    run_directory: Path
    services: dict[str, RunningService] = field(default_factory=dict)
    holder: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation)
    events: list[ServiceEvent] = field(default_factory=list)
    rule_checks: list[RuleCheck] = field(default_factory=list)
    disk_watch: DiskWatch | None = None

    def create_and_start(self, before_start: Callable[[], None] = lambda: None) -> None:
        """Create everything, call `before_start`, start the services and wait until they are ready."""
        steps = (
            self._create_networks_and_volumes,
            self._create_containers,
            self._verify_isolation,
            before_start,
            self._watch_disks,
            self._start_services,
            partial(self._for_all_services, require_enforced_limits),  # R10
        )
        for step in steps:
            self.cancellation.raise_if_cancelled()
            step()

    def _create_networks_and_volumes(self) -> None:
        """Create both at the same time, since the holder needs no network."""
        with ThreadPoolExecutor(2) as pool:
            networks = pool.submit(create_networks, self.engine, self.owner, self.plan.networks)
            volumes = pool.submit(self._create_volumes)
            networks.result()
            volumes.result()

    def _create_volumes(self) -> None:
        """Create the volumes, mount them in the holder, which is removed last, and fill them."""
        create_volumes(self.engine, self.owner, self.plan.volumes)
        if self.plan.holder_mounts and not self.holder:
            self.holder = self._create_holder()
        for service in self.plan.services.values():
            for kind, files in (("configs", service.config_files), ("secrets", service.secret_files)):
                directory = self.plan.holder_mounts.get(f"{self.plan.prefix}{service.name}-{kind}")
                if directory:
                    put_files(self.engine, self.holder, directory, files)

    def _create_holder(self) -> str:
        mounts = [
            {"Type": "volume", "Source": volume, "Target": target, "VolumeOptions": {"NoCopy": True}}
            for volume, target in self.plan.holder_mounts.items()
        ]
        payload = {
            "Image": ensure_holder_image(self.engine, self.owner),
            "Cmd": [HOLD_PATH],
            "HostConfig": {
                "Mounts": mounts, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"], "Memory": _HOLDER_MEMORY_BYTES,
                "MemorySwap": _HOLDER_MEMORY_BYTES, "NanoCpus": _HOLDER_NANO_CPUS, "PidsLimit": 8,
                **self.plan.holder_host_config,
            },
        }  # fmt: skip
        name = self.plan.holder
        container_id, _ = create_containers(self.engine, self.owner, {name: payload})[name]
        start_container(self.engine, container_id, name)
        return container_id

    def _create_containers(self) -> None:
        payloads = {service.container: service.payload for service in self.plan.services.values()}
        created = create_containers(self.engine, self.owner, payloads)
        logs_directory = self.run_directory / self.plan.logs_path
        logs_directory.mkdir(parents=True, exist_ok=True)
        for name, planned in self.plan.services.items():
            container_id, warnings = created[planned.container]
            require_limits(name, warnings)
            for network in planned.networks:
                connect_to_network(self.engine, network, container_id, [name, *planned.service.aliases])
            path = logs_directory / f"{name}.log"
            path.touch()
            log = LogFollower(self.engine, container_id, path, self.plan.secret_values)
            stats = StatsSampler(self.engine, container_id)
            self.services[name] = RunningService(planned, self.engine, container_id, log, stats, self.cancellation)

    def _verify_isolation(self) -> None:
        """Check, before anything is started, that the containers as the engine reports them follow the rules."""
        for name, service in self.services.items():
            planned = service.planned
            bind_sources = {
                mount["Source"] for mount in planned.payload["HostConfig"]["Mounts"] if mount["Type"] == "bind"
            }
            host_options = read_host_config(self.engine, service.id)
            self.rule_checks += check_container(name, planned.service, host_options, bind_sources)
        if any(check.messages for check in self.rule_checks):
            raise CheckFailedError(
                "The engine created containers that violate rules",
                hint="Use an engine that applies the requested container settings",
                details=tuple(
                    f"{check.scope}: {message} (rule {check.rule})"
                    for check in self.rule_checks
                    for message in check.messages
                ),
            )

    def _watch_disks(self) -> None:
        def end_service(root: WatchedRoot, written_bytes: int) -> None:
            self.services[root.service].disk_error = root.error(written_bytes)

        self.disk_watch = DiskWatch(self.engine, list_writable_roots(self.services), end_service)
        self.disk_watch.start()

    def _start_services(self) -> None:
        """Start each service as soon as its dependencies are ready; the first failure stops the others."""
        names = [name for wave in self.plan.waves for name in wave]
        futures: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max(len(names), 1)) as pool:
            for name in names:
                dependencies = [
                    futures[dependency]
                    for dependency in self.services[name].planned.service.depends_on
                    if dependency in futures
                ]
                futures[name] = pool.submit(self._start_service, name, dependencies, futures)
        for future in futures.values():
            future.result()

    def _start_service(
        self, name: str, dependencies: Sequence[Future[None]], futures: Mapping[str, Future[None]]
    ) -> None:
        for future in dependencies:
            future.result()
        for future in list(futures.values()):
            if future.done():
                future.result()
        self.cancellation.raise_if_cancelled()
        service = self.services[name]
        service.log.start()
        start_container(self.engine, service.id, name)
        self.events.append(create_service_event("started", name))
        service.stats.start()
        started = time.monotonic()
        state = read_container_state(self.engine, service.id)
        service.ports, service.started_at = state.ports, state.started_at
        if not service.planned.must_be_ready:
            return
        require_reachable(service)
        try:
            with console.progress(f"{name}: starting"):
                wait_until_ready(service)
        except CheckFailedError:
            state = read_container_state(self.engine, service.id)
            if not state.running:
                self._record_exit(name, state)
            raise
        self.events.append(create_service_event("ready", name, seconds=time.monotonic() - started))
        console.info(f"{name}: ready after {time.monotonic() - started:.1f} s")

    def _for_all_services(self, action: Callable[[RunningService], T]) -> list[tuple[RunningService, T]]:
        """Run `action` for all long-running services in parallel, since each call waits for the engine."""
        long_running = [service for service in self.services.values() if not service.planned.service.oneshot]
        with ThreadPoolExecutor(len(long_running) or 1) as pool:
            return list(zip(long_running, pool.map(action, long_running), strict=True))

    def find_failure(self) -> CheckFailedError | None:
        """Return the error of the first service that has exited although it should be running."""
        states = self._for_all_services(lambda service: read_container_state(self.engine, service.id))
        for service, state in states:
            if not state.running:
                self._record_exit(service.planned.name, state)
                return exit_error(service, state)
            if state.started_at != service.started_at:
                self._adopt_restart(service, state)
                return self.find_failure()  # what the others did meanwhile
        return None

    def find_final_failure(self) -> CheckFailedError | None:
        """Do the same after the last check: wait for exits that the engine has not noticed yet, and ask for health."""
        if self.disk_watch is not None:
            self.disk_watch.measure()
        self._for_all_services(self._wait_for_exit)
        failure = self.find_failure()
        if failure is None:
            try:
                self._for_all_services(self._require_health)
            except CheckFailedError as error:
                return error
        return failure

    def _require_health(self, service: RunningService) -> None:
        if service.planned.must_be_ready:
            require_healthy(service, read_container_state(self.engine, service.id))

    def _wait_for_exit(self, service: RunningService) -> None:
        sample = service.stats.sample_now()  # the kernel knows a moment before the engine
        if sample is None or not sample.pids:
            wait_until(lambda: not read_container_state(self.engine, service.id).running, _EXIT_STATUS_TIMEOUT_S, 0.02)

    def _adopt_restart(self, service: RunningService, state: ContainerState) -> None:
        """Follow a service that a check has restarted; it keeps its volumes but gets new ports."""
        service.ports, service.started_at = state.ports, state.started_at
        service.log.resume(datetime.fromisoformat(state.started_at).timestamp())
        service.stats.start()
        self.events.append(create_service_event("started", service.planned.name))
        wait_until_ready(service)
        self.events.append(create_service_event("ready", service.planned.name))
        console.info(f"{service.planned.name}: restarted and ready")

    def _record_exit(self, name: str, state: ContainerState) -> None:
        outcome = "out of memory" if state.oom_killed else f"exit code {state.exit_code}"
        self.events.append(create_service_event("ended", name, outcome=outcome))

    def detach(self) -> None:
        """Record the state of the services and leave them running until `clean`."""
        for service in self.services.values():
            service.final_state = read_container_state(self.engine, service.id)
        self.leave()

    def leave(self) -> None:
        """Stop watching and following the services, which keep running; a process of its own watches their disk use."""
        if self.disk_watch is not None:
            self.disk_watch.stop()
        for service in self.services.values():
            service.log.stop()
        start_guard(self.engine, self.owner.journal, self.owner.run, list_writable_roots(self.services))

    def kill(self) -> None:
        """Kill all containers, so that nothing waits for them any longer."""
        kill_containers(self.engine, [service.id for service in list(self.services.values())])

    def tear_down(self) -> None:
        """Stop and remove everything in this lab; can be called at any point and repeatedly."""
        with console.progress("removing the environment"):
            if self.disk_watch is not None:
                self.disk_watch.stop()
            try:
                self.kill()
                for service in self.services.values():
                    service.log.finish()
                    service.final_state = read_container_state(self.engine, service.id)
            finally:
                remove_run(self.engine, self.owner, self.plan.prefix)
