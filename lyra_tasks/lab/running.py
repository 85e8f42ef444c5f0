"""A lab while it runs: started in waves, followed, watched, and taken away whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.engine import objects
from lyra_tasks.engine.holder import holder_image
from lyra_tasks.engine.ownership import Owned, Owner, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.engine.streams import LogFollower, StatsSampler
from lyra_tasks.errors import PreconditionError, ResidueError, VerdictError
from lyra_tasks.lab.plan import LabPlan, PlannedService
from lyra_tasks.lab.ready import wait_until_ready

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_FIRST_SAMPLE = 10.0


@dataclass
class RunningService:
    """A started container with its followers; `ports` maps container ports to published ones."""

    planned: PlannedService
    engine: Engine
    id: str
    log: LogFollower
    stats: StatsSampler
    ports: Mapping[int, int] = field(default_factory=dict)
    last: objects.ContainerState | None = None

    def address(self, port: int | str) -> tuple[str, int]:
        """Host and port on which a port of the service, by number or name, answers from this machine."""
        return self.engine.reach_at, self.ports[self.planned.service.port(port) or 0]

    def http_address(self) -> tuple[str, int]:
        """Where HTTP checks are made; `check_tests.py` has made sure that there is one such port."""
        return self.address(self.planned.service.http_port or 0)


@dataclass
class Lab:
    """One run's networks, volumes and containers on the engine; `holder` is the container that holds the volumes."""

    plan: LabPlan
    engine: Engine
    owner: Owner
    folder: Path
    services: dict[str, RunningService] = field(default_factory=dict)
    holder: str = ""

    def build_up(self, prepare: Callable[[], None] = lambda: None) -> None:
        """Make everything, call `prepare`, and start it; returns when every service that is attended is ready."""
        steps = (
            self._make_networks,
            self._make_volumes,
            self._make_containers,
            prepare,
            self._start_waves,
            self._read_back_limits,
        )
        for step in steps:
            step()

    def _make_networks(self) -> None:
        objects.make_networks(self.engine, self.owner, self.plan.networks)

    def _make_volumes(self) -> None:
        """The holder mounts every volume before anything is put into it, and leaves last."""
        objects.make_volumes(self.engine, self.owner, self.plan.volumes)
        if self.plan.holder_mounts and not self.holder:
            self.holder = self._make_holder()
        for service in self.plan.services.values():
            for kind, files in (("configs", service.config_files), ("secrets", service.secret_files)):
                folder = self.plan.holder_mounts.get(f"lyra-{self.plan.run}-{service.name}-{kind}")
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
                "NanoCpus": 50_000_000, "PidsLimit": 8, **self.plan.holder_host,
            },
        }  # fmt: skip
        name = self.plan.holder
        identity, _ = objects.make_containers(self.engine, self.owner, {name: payload})[name]
        objects.start(self.engine, identity, name)
        return identity

    def _make_containers(self) -> None:
        payloads = {each.container: each.payload for each in self.plan.services.values()}
        made = objects.make_containers(self.engine, self.owner, payloads)
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for name, planned in self.plan.services.items():
            identity, warnings = made[planned.container]
            _refuse_unlimited(name, warnings)
            for network in planned.networks:
                objects.connect_network(self.engine, network, identity, [name])
            follower = LogFollower(self.engine, identity, logs / f"{name}.log", planned.masked)
            follower.path.touch()
            sampler = StatsSampler(self.engine, identity)
            self.services[name] = RunningService(planned, self.engine, identity, follower, sampler)

    def _start_waves(self) -> None:
        for wave in self.plan.waves:
            with ThreadPoolExecutor(len(wave)) as pool:
                list(pool.map(self._start, wave))

    def _start(self, name: str) -> None:
        service = self.services[name]
        service.log.start()
        objects.start(self.engine, service.id, name)
        service.stats.start()
        began = time.monotonic()
        service.ports = objects.state(self.engine, service.id).ports
        if not service.planned.attended:
            return
        wait_until_ready(self.engine, service)
        console.note(f"{name}: ready after {time.monotonic() - began:.1f} s")

    def _read_back_limits(self) -> None:
        """A limit that the kernel does not have in force fails the run (R10)."""
        for service in self.services.values():
            if not service.planned.service.oneshot:
                self._read_back(service)

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
        sample = service.stats.first(_FIRST_SAMPLE) if running else None
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
                    return death(service, now)
        return None

    def leave(self) -> None:
        """Let the lab run on; what the services are doing now is noted, and `clean` ends them."""
        for service in self.services.values():
            service.last = objects.state(self.engine, service.id)

    def take_down(self) -> None:
        """End and remove everything of this run; safe to call at any point, and more than once.

        ResidueError names what the engine would not give back.
        """
        try:
            objects.kill(self.engine, [each.id for each in self.services.values()])
            for service in self.services.values():
                if hasattr(service.log, "_thread"):
                    service.log.finish()
                service.last = objects.state(self.engine, service.id)
        finally:
            remove_run(self.engine, self.owner)


def remove_run(engine: Engine, owner: Owner) -> None:
    """Remove every object of a run; ResidueError names what the engine would not give back."""
    left: dict[Owned, str] = {}
    for _ in range(3):
        found = owned(engine, owner.journal.entries(), run=owner.run)
        if not found:
            return
        gone, left = remove(engine, found)
        owner.removed(engine, gone)
    raise ResidueError(
        f"{len(left)} object(s) of this run could not be removed",
        hint="run `clean`",
        details=tuple(f"{item.kind} {item.name}: {reason}" for item, reason in left.items()),
    )


def _refuse_unlimited(name: str, warnings: list[str]) -> None:
    lost = [warning for warning in warnings if "limit" in warning.lower() or "discarded" in warning.lower()]
    if lost:
        raise PreconditionError(
            f"the engine does not enforce the limits of {name}: {'; '.join(lost)}",
            hint="use an engine whose kernel has the memory, cpu and pids controllers",
        )
