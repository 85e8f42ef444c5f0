"""A lab while it runs: started in waves, followed, watched, and taken away whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.engine.client.monitoring import LogFollower, StatsSampler
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
    wait_for_container_exit,
)
from lyra_tasks.engine.objects.holder import ensure_holder_image
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner, list_owned_objects
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.errors import CheckFailedError, LeftoverError, PreconditionError
from lyra_tasks.lab.admission import require_limits
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.plan import LabPlan, PlannedService
from lyra_tasks.lab.service import wait_until_ready
from lyra_tasks.ports import ContainerPort
from lyra_tasks.records.evidence import ServiceEvent, create_service_event
from lyra_tasks.rules.finding import RuleCheck
from lyra_tasks.rules.services import check_container

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

# It does nothing, but the runtime starts it within this limit: with a twentieth of a core that takes 0.3 s longer; and
# a removal from a source volume, which is a process in it, half a second
_HOLDER_NANO_CPUS = 200_000_000
_EXIT_STATUS_TIMEOUT_S = 10.0  # seconds in which an engine notices that a container has ended, however busy it is


@dataclass
class RunningService:
    """A started container with its followers; `ports` maps container ports to published ones."""

    planned: PlannedService
    engine: Engine
    id: str
    log: LogFollower
    stats: StatsSampler
    cancellation: Cancellation
    ports: Mapping[ContainerPort, int] = field(default_factory=dict)
    started_at: str = ""
    final_state: ContainerState | None = None

    def address(self, port: int | str) -> tuple[str, int]:
        """Host and port on which a port of the service, by number or name, answers from this machine.

        PreconditionError for one that the engine does not publish, since the container had ended when it was asked.
        """
        published_port = self.ports.get(self.planned.service.resolve_port(port) or 0)
        if published_port is None:
            raise PreconditionError(f"{self.planned.name} publishes no port {port}: it had ended by then")
        return self.engine.host_address, published_port

    def http_address(self) -> tuple[str, int]:
        """Where HTTP checks are made; `check_tests.py` has made sure that there is one such port."""
        return self.address(self.planned.service.http_port or 0)


@dataclass
class Lab:
    """Networks, volumes and containers on the engine; `holder` is the container that holds the volumes."""

    plan: LabPlan
    engine: Engine
    owner: Owner
    run_directory: Path
    services: dict[str, RunningService] = field(default_factory=dict)
    holder: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation)
    events: list[ServiceEvent] = field(default_factory=list)
    rule_checks: list[RuleCheck] = field(default_factory=list)

    def create_and_start(self, before_start: Callable[[], None] = lambda: None) -> None:
        """Make everything, call `prepare`, and start it; returns when every service that is attended is ready."""
        steps = (
            self._create_networks_and_volumes,
            self._create_containers,
            self._verify_isolation,
            before_start,
            self._start_services,
            self._verify_all_limits,
        )
        for step in steps:
            self.cancellation.raise_if_cancelled()
            step()

    def _create_networks_and_volumes(self) -> None:
        """At the same time: the holder needs no network."""
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self._create_networks), pool.submit(self._create_volumes)]:
                future.result()

    def _create_networks(self) -> None:
        create_networks(self.engine, self.owner, self.plan.networks)

    def _create_volumes(self) -> None:
        """The holder mounts every volume before anything is put into it, and leaves last."""
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
            "Cmd": ["/hold"],
            "HostConfig": {
                "Mounts": mounts, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"], "Memory": 16 << 20, "MemorySwap": 16 << 20,
                "NanoCpus": _HOLDER_NANO_CPUS, "PidsLimit": 8, **self.plan.holder_host_config,
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
                connect_to_network(self.engine, network, container_id, [name])
            log_follower = LogFollower(self.engine, container_id, logs_directory / f"{name}.log", planned.secret_values)
            log_follower.path.touch()
            stats_sampler = StatsSampler(self.engine, container_id)
            self.services[name] = RunningService(
                planned, self.engine, container_id, log_follower, stats_sampler, self.cancellation
            )

    def _verify_isolation(self) -> None:
        """What the engine made is looked at before it starts; what it gives back counts, not what was asked for."""
        for name, service in self.services.items():
            planned = service.planned
            bind_sources = {
                mount["Source"] for mount in planned.payload["HostConfig"]["Mounts"] if mount["Type"] == "bind"
            }
            host_options = read_host_config(self.engine, service.id)
            self.rule_checks += check_container(name, planned.service, host_options, bind_sources)
        if violations := [violation for rule_check in self.rule_checks for violation in rule_check.violations]:
            raise CheckFailedError(
                "the engine made containers that do not keep the rules",
                hint="use an engine that takes what it is asked for",
                details=tuple(
                    f"{violation.scope}: {violation.message} (rule {violation.rule})" for violation in violations
                ),
            )

    def _start_services(self) -> None:
        """Each as soon as those that it depends on are ready; the fault of the first that is not ends the rest."""
        names = [name for wave in self.plan.waves for name in wave]
        futures: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max(len(names), 1)) as pool:
            for name in names:
                dependencies = [
                    futures[dependency]
                    for dependency in self.services[name].planned.service.depends_on
                    if dependency in futures
                ]
                futures[name] = pool.submit(self._start_after_dependencies, dependencies, futures, name)
        for future in futures.values():
            future.result()

    def _start_after_dependencies(
        self, dependencies: Sequence[Future[None]], futures: Mapping[str, Future[None]], name: str
    ) -> None:
        for future in dependencies:
            future.result()
        for future in list(futures.values()):
            if future.done():
                future.result()
        self._start_service(name)

    def _start_service(self, name: str) -> None:
        self.cancellation.raise_if_cancelled()
        service = self.services[name]
        service.log.start()
        start_container(self.engine, service.id, name)
        self.events.append(create_service_event("started", name))
        service.stats.start()
        started = time.monotonic()
        container_state = read_container_state(self.engine, service.id)
        service.ports, service.started_at = container_state.ports, container_state.started_at
        if not service.planned.must_be_ready:
            return
        try:
            with console.progress(f"{name}: starting"):
                wait_until_ready(self.engine, service)
        except CheckFailedError:
            container_state = read_container_state(self.engine, service.id)
            if not container_state.running:
                self.record_exit(name, container_state)
            raise
        self.events.append(create_service_event("ready", name, seconds=time.monotonic() - started))
        console.info(f"{name}: ready after {time.monotonic() - started:.1f} s")

    def _verify_all_limits(self) -> None:
        """A limit that the kernel does not have in force fails the run (R10)."""
        self._for_all_services(self._verify_limits)

    def _for_all_services(self, action: Callable[[RunningService], None]) -> None:
        """Look at all services that are to last, at the same time: each look waits for the engine."""
        long_running = [service for service in self.services.values() if not service.planned.service.oneshot]
        with ThreadPoolExecutor(len(long_running) or 1) as pool:
            list(pool.map(action, long_running))

    def _verify_limits(self, service: RunningService) -> None:
        planned = service.planned
        requested = planned.payload["HostConfig"]
        host_options = read_host_config(self.engine, service.id)
        mismatches = [
            f"{key}: asked for {requested[key]}, in force {host_options.get(key)}"
            for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "ReadonlyRootfs")
            if host_options.get(key) != requested[key]
        ]
        is_running = planned.must_be_ready or read_container_state(self.engine, service.id).running
        sample = service.stats.sample_now() if is_running else None
        if sample is not None:
            for resource, actual, expected in (
                ("memory", sample.memory_limit, requested["Memory"]),
                ("pids", sample.pids_limit, requested["PidsLimit"]),
            ):
                if actual != expected:
                    mismatches.append(f"{resource}: asked for {expected}, the kernel has {actual}")
        if mismatches:
            raise PreconditionError(
                f"limits of {planned.name} are not in force",
                hint="use an engine whose kernel has the memory, cpu and pids controllers",
                details=tuple(mismatches),
            )

    def find_failure(self) -> CheckFailedError | None:
        """The fault of the first service that has ended although it should be running."""
        from lyra_tasks.lab.service import exit_error

        for service in self.services.values():
            if not service.planned.service.oneshot:
                container_state = read_container_state(self.engine, service.id)
                if not container_state.running:
                    self.record_exit(service.planned.name, container_state)
                    return exit_error(service, container_state)
                if container_state.started_at != service.started_at:
                    self._adopt_restart(service, container_state)
        return None

    def find_final_failure(self) -> CheckFailedError | None:
        """The same after the last check, when nothing follows that would show what the engine does not know yet."""
        self._for_all_services(self._wait_for_exit)
        return self.find_failure()

    def _wait_for_exit(self, service: RunningService) -> None:
        sample = service.stats.sample_now()  # the kernel knows a moment before the engine does
        if sample is None or not sample.pids:
            wait_for_container_exit(self.engine, service.id, _EXIT_STATUS_TIMEOUT_S)

    def _adopt_restart(self, service: RunningService, container_state: ContainerState) -> None:
        """Follow a service that a check has started again; its volumes are what they were, its ports are others."""
        service.ports, service.started_at = container_state.ports, container_state.started_at
        service.log.resume(datetime.fromisoformat(container_state.started_at).timestamp())
        service.stats.start()
        self.events.append(create_service_event("started", service.planned.name))
        wait_until_ready(self.engine, service)
        self.events.append(create_service_event("ready", service.planned.name))
        console.info(f"{service.planned.name}: started again, and ready")

    def record_exit(self, name: str, container_state: ContainerState) -> None:
        """Keep when a service was seen to have ended, and how."""
        outcome = "out of memory" if container_state.oom_killed else f"exit code {container_state.exit_code}"
        self.events.append(create_service_event("ended", name, outcome=outcome))

    def detach(self) -> None:
        """Let the lab run on; what the services are doing now is noted, and `clean` ends them."""
        for service in self.services.values():
            service.final_state = read_container_state(self.engine, service.id)

    def kill(self) -> None:
        """End every container now, so that whoever waits for one of them waits no longer."""
        kill_containers(self.engine, [service.id for service in list(self.services.values())])

    def tear_down(self) -> None:
        """End and remove everything of this lab; safe to call at any point, and more than once.

        ResidueError names what the engine would not give back.
        """
        with console.progress("taking the lab away"):
            try:
                self.kill()
                for service in self.services.values():
                    service.log.finish()
                    service.final_state = read_container_state(self.engine, service.id)
            finally:
                remove_run(self.engine, self.owner, self.plan.prefix)


_MAX_REMOVE_ATTEMPTS = 3
_RETRY_INTERVAL_S = 0.25  # seconds, more with each


def remove_run(engine: Engine, owner: Owner, prefix: str = "") -> None:
    """Remove every object of a run whose name begins with `prefix`.

    ResidueError names what the engine would not give back.
    """
    failures: dict[OwnedObject, str] = {}
    for attempt in range(_MAX_REMOVE_ATTEMPTS):
        owned_objects = list_owned_objects(engine, owner.journal.entries(), run=owner.run)
        matches = [candidate for candidate in owned_objects if candidate.name.startswith(prefix)]
        if not matches:
            return
        # somebody else, such as `clean`, may be removing the same object just now
        time.sleep(_RETRY_INTERVAL_S * attempt)
        removed, failures = remove_objects(engine, matches)
        owner.record_removed(engine, removed)
    if failures:
        raise LeftoverError(
            f"{len(failures)} object(s) of this run could not be removed",
            hint="run `clean`",
            details=tuple(f"{item.kind} {item.name}: {reason}" for item, reason in failures.items()),
        )
