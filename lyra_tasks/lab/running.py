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
from lyra_tasks.config.ports import AnyPort
from lyra_tasks.engine import objects
from lyra_tasks.engine.holder import holder_image
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.streams import LogFollower, StatsSampler
from lyra_tasks.errors import PreconditionError, VerdictError
from lyra_tasks.lab.admission import require_limits
from lyra_tasks.lab.halt import Halt
from lyra_tasks.lab.plan import LabPlan, PlannedService
from lyra_tasks.lab.ready import wait_until_ready
from lyra_tasks.lab.takedown import remove_run
from lyra_tasks.records.metrics import Event, event
from lyra_tasks.rules.breach import Look
from lyra_tasks.rules.containers import container_looks

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

# It does nothing, but the runtime starts it within this limit: with a twentieth of a core that takes 0.3 s longer; and
# a removal from a source volume, which is a process in it, half a second
_HOLDER_CPUS = 200_000_000
_KNOWN_AFTER = 10.0  # seconds in which an engine notices that a container has ended, however busy it is


@dataclass
class RunningService:
    """A started container with its followers; `ports` maps container ports to published ones."""

    planned: PlannedService
    engine: Engine
    id: str
    log: LogFollower
    stats: StatsSampler
    halt: Halt
    ports: Mapping[AnyPort, int] = field(default_factory=dict)
    started_at: str = ""
    last: objects.ContainerState | None = None

    def address(self, port: int | str) -> tuple[str, int]:
        """Host and port on which a port of the service, by number or name, answers from this machine.

        PreconditionError for one that the engine does not publish, since the container had ended when it was asked.
        """
        published = self.ports.get(self.planned.service.port(port) or 0)
        if published is None:
            raise PreconditionError(f"{self.planned.name} publishes no port {port}: it had ended by then")
        return self.engine.reach_at, published

    def http_address(self) -> tuple[str, int]:
        """Where HTTP checks are made; `check_tests.py` has made sure that there is one such port."""
        return self.address(self.planned.service.http_port or 0)


@dataclass
class Lab:
    """Networks, volumes and containers on the engine; `holder` is the container that holds the volumes."""

    plan: LabPlan
    engine: Engine
    owner: Owner
    folder: Path
    services: dict[str, RunningService] = field(default_factory=dict)
    holder: str = ""
    halt: Halt = field(default_factory=Halt)
    events: list[Event] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def build_up(self, prepare: Callable[[], None] = lambda: None) -> None:
        """Make everything, call `prepare`, and start it; returns when every service that is attended is ready."""
        steps = (
            self._make_networks_and_volumes,
            self._make_containers,
            self._read_back_isolation,
            prepare,
            self._start_services,
            self._read_back_limits,
        )
        for step in steps:
            self.halt.pass_by()
            step()

    def _make_networks_and_volumes(self) -> None:
        """At the same time: the holder needs no network."""
        with ThreadPoolExecutor(2) as pool:
            for made in [pool.submit(self._make_networks), pool.submit(self._make_volumes)]:
                made.result()

    def _make_networks(self) -> None:
        objects.make_networks(self.engine, self.owner, self.plan.networks)

    def _make_volumes(self) -> None:
        """The holder mounts every volume before anything is put into it, and leaves last."""
        objects.make_volumes(self.engine, self.owner, self.plan.volumes)
        if self.plan.holder_mounts and not self.holder:
            self.holder = self._make_holder()
        for service in self.plan.services.values():
            for kind, files in (("configs", service.config_files), ("secrets", service.secret_files)):
                folder = self.plan.holder_mounts.get(f"{self.plan.prefix}{service.name}-{kind}")
                if folder:
                    objects.put_files(self.engine, self.holder, folder, files)

    def _make_holder(self) -> str:
        mounts = [
            {"Type": "volume", "Source": volume, "Target": target, "VolumeOptions": {"NoCopy": True}}
            for volume, target in self.plan.holder_mounts.items()
        ]
        payload = {
            "Image": holder_image(self.engine, self.owner),
            "Cmd": ["/hold"],
            "HostConfig": {
                "Mounts": mounts, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"], "Memory": 16 << 20, "MemorySwap": 16 << 20,
                "NanoCpus": _HOLDER_CPUS, "PidsLimit": 8, **self.plan.holder_host,
            },
        }  # fmt: skip
        name = self.plan.holder
        identity, _ = objects.make_containers(self.engine, self.owner, {name: payload})[name]
        objects.start(self.engine, identity, name)
        return identity

    def _make_containers(self) -> None:
        payloads = {each.container: each.payload for each in self.plan.services.values()}
        made = objects.make_containers(self.engine, self.owner, payloads)
        logs = self.folder / self.plan.logs
        logs.mkdir(parents=True, exist_ok=True)
        for name, planned in self.plan.services.items():
            identity, warnings = made[planned.container]
            require_limits(name, warnings)
            for network in planned.networks:
                objects.connect_network(self.engine, network, identity, [name])
            follower = LogFollower(self.engine, identity, logs / f"{name}.log", planned.masked)
            follower.path.touch()
            sampler = StatsSampler(self.engine, identity)
            self.services[name] = RunningService(planned, self.engine, identity, follower, sampler, self.halt)

    def _read_back_isolation(self) -> None:
        """What the engine made is looked at before it starts; what it gives back counts, not what was asked for."""
        for name, service in self.services.items():
            planned = service.planned
            own = {mount["Source"] for mount in planned.payload["HostConfig"]["Mounts"] if mount["Type"] == "bind"}
            host = objects.host_config(self.engine, service.id)
            self.looks += container_looks(name, planned.service, host, own)
        if broken := [breach for look in self.looks for breach in look.found]:
            raise VerdictError(
                "the engine made containers that do not keep the rules",
                hint="use an engine that takes what it is asked for",
                details=tuple(f"{each.scope}: {each.what} (rule {each.rule})" for each in broken),
            )

    def _start_services(self) -> None:
        """Each as soon as those that it depends on are ready; the fault of the first that is not ends the rest."""
        names = [name for wave in self.plan.waves for name in wave]
        begun: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max(len(names), 1)) as pool:
            for name in names:
                needed = [begun[each] for each in self.services[name].planned.service.depends_on if each in begun]
                begun[name] = pool.submit(self._start_after, needed, begun, name)
        for each in begun.values():
            each.result()

    def _start_after(self, needed: Sequence[Future[None]], begun: Mapping[str, Future[None]], name: str) -> None:
        for each in needed:
            each.result()
        for each in list(begun.values()):
            if each.done():
                each.result()
        self._start(name)

    def _start(self, name: str) -> None:
        self.halt.pass_by()
        service = self.services[name]
        service.log.start()
        objects.start(self.engine, service.id, name)
        self.events.append(event("started", name))
        service.stats.start()
        began = time.monotonic()
        now = objects.state(self.engine, service.id)
        service.ports, service.started_at = now.ports, now.started_at
        if not service.planned.attended:
            return
        try:
            with console.doing(f"{name}: starting"):
                wait_until_ready(self.engine, service)
        except VerdictError:
            now = objects.state(self.engine, service.id)
            if not now.running:
                self.note_end(name, now)
            raise
        self.events.append(event("ready", name, seconds=time.monotonic() - began))
        console.note(f"{name}: ready after {time.monotonic() - began:.1f} s")

    def _read_back_limits(self) -> None:
        """A limit that the kernel does not have in force fails the run (R10)."""
        self._at_once(self._read_back)

    def _at_once(self, look: Callable[[RunningService], None]) -> None:
        """Look at all services that are to last, at the same time: each look waits for the engine."""
        lasting = [each for each in self.services.values() if not each.planned.service.oneshot]
        with ThreadPoolExecutor(len(lasting) or 1) as pool:
            list(pool.map(look, lasting))

    def _read_back(self, service: RunningService) -> None:
        planned = service.planned
        wanted = planned.payload["HostConfig"]
        host = objects.host_config(self.engine, service.id)
        wrong = [
            f"{key}: asked for {wanted[key]}, in force {host.get(key)}"
            for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "ReadonlyRootfs")
            if host.get(key) != wanted[key]
        ]
        running = planned.attended or objects.state(self.engine, service.id).running
        sample = service.stats.now() if running else None
        if sample is not None:
            for what, seen, asked in (
                ("memory", sample.memory_limit, wanted["Memory"]),
                ("pids", sample.pids_limit, wanted["PidsLimit"]),
            ):
                if seen != asked:
                    wrong.append(f"{what}: asked for {asked}, the kernel has {seen}")
        if wrong:
            raise PreconditionError(
                f"limits of {planned.name} are not in force",
                hint="use an engine whose kernel has the memory, cpu and pids controllers",
                details=tuple(wrong),
            )

    def died(self) -> VerdictError | None:
        """The fault of the first service that has ended although it should be running."""
        from lyra_tasks.lab.ready import death

        for service in self.services.values():
            if not service.planned.service.oneshot:
                now = objects.state(self.engine, service.id)
                if not now.running:
                    self.note_end(service.planned.name, now)
                    return death(service, now)
                if now.started_at != service.started_at:
                    self._take_up(service, now)
        return None

    def died_at_last(self) -> VerdictError | None:
        """The same after the last check, when nothing follows that would show what the engine does not know yet."""
        self._at_once(self._see_end)
        return self.died()

    def _see_end(self, service: RunningService) -> None:
        sample = service.stats.now()  # the kernel knows a moment before the engine does
        if sample is None or not sample.pids:
            objects.wait_for_end(self.engine, service.id, _KNOWN_AFTER)

    def _take_up(self, service: RunningService, now: objects.ContainerState) -> None:
        """Follow a service that a check has started again; its volumes are what they were, its ports are others."""
        service.ports, service.started_at = now.ports, now.started_at
        service.log.resume(datetime.fromisoformat(now.started_at).timestamp())
        service.stats.start()
        self.events.append(event("started", service.planned.name))
        wait_until_ready(self.engine, service)
        self.events.append(event("ready", service.planned.name))
        console.note(f"{service.planned.name}: started again, and ready")

    def note_end(self, name: str, now: objects.ContainerState) -> None:
        """Keep when a service was seen to have ended, and how."""
        outcome = "out of memory" if now.oom_killed else f"exit code {now.exit_code}"
        self.events.append(event("ended", name, outcome=outcome))

    def leave(self) -> None:
        """Let the lab run on; what the services are doing now is noted, and `clean` ends them."""
        for service in self.services.values():
            service.last = objects.state(self.engine, service.id)

    def kill(self) -> None:
        """End every container now, so that whoever waits for one of them waits no longer."""
        objects.kill(self.engine, [each.id for each in list(self.services.values())])

    def take_down(self) -> None:
        """End and remove everything of this lab; safe to call at any point, and more than once.

        ResidueError names what the engine would not give back.
        """
        with console.doing("taking the lab away"):
            try:
                self.kill()
                for service in self.services.values():
                    service.log.finish()
                    service.last = objects.state(self.engine, service.id)
            finally:
                remove_run(self.engine, self.owner, self.plan.prefix)
