"""Starting a sandbox engine: checks, a plan, namespaces with a waiting first process, and only then the daemon."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.engine.mirror import is_ubuntu
from lyra_tasks.engine.sandbox import cgroups, network, packages
from lyra_tasks.engine.sandbox.layout import (
    Places,
    Record,
    Sandbox,
    Store,
    boot_id,
    is_alive,
    places_of,
    read_record,
    sandbox_of,
    start_time,
    write_record,
)
from lyra_tasks.engine.sandbox.stop import clear
from lyra_tasks.errors import EngineUnavailableError, PreconditionError, UsageError
from lyra_tasks.run import locked

INIT = Path(__file__).with_name("init.sh")
CHOICES = "start Docker and name it in [engine] context, run this as root, or use a machine with Debian or Ubuntu"
_NAMESPACES = ("--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL", "--net", "--ipc", "--uts")
_START_WAIT = 60.0  # seconds; a slow disk, a first start
_LOCK_WAIT = 1200.0  # seconds; another start may be downloading


@dataclass(frozen=True)
class StartPlan:
    """Everything about an engine that is decided before anything is made. `memory` in bytes."""

    places: Places
    engine: Path
    suite: str
    store: Store
    memory: int | None
    cpus: float | None


def up(
    state: Path,
    *,
    cache: Path,
    suite: str = "trixie",
    store: Store | None = None,
    memory: int | None = None,
    cpus: float | None = None,
    progress: Callable[[str], None] = console.note,
) -> Sandbox:
    """The private engine of a state folder, started if it does not run; `memory` in bytes limits all that is in it.

    `store` defaults to the suite's best. EngineUnavailableError says why there can be none here; nothing is left then.
    """
    _require_root()
    suite = packages.suite_here(suite)
    chosen = _store(suite, store)
    places = places_of(state)
    with locked(places.lock, what="the sandbox engine", wait=_LOCK_WAIT):
        record = read_record(places)
        if record is not None and is_alive(record):
            return _running(places, record, suite, chosen)
        clear(places)
        engine = _fetch(cache, suite, progress)
        return run(StartPlan(places=places, engine=engine, suite=suite, store=chosen, memory=memory, cpus=cpus))


def run(plan: StartPlan) -> Sandbox:
    """Start the engine of a plan and wait until it answers; a start that fails leaves nothing running."""
    places = plan.places
    _prepare(plan)
    gate_reader, gate = os.pipe()
    try:
        try:
            cgroups.create(places.name, memory=plan.memory, cpus=plan.cpus)
            _launch(plan, gate_reader)
        finally:
            os.close(gate_reader)
        first, second = _wait_for_pids(places, gate)
        cgroups.enter(places.name, [first, second])
        uplink = network.connect(places.engine, first, places.name)
        record = _record(plan, first, uplink)
        write_record(places, record)
        os.write(gate, f"{uplink.gateway} {uplink.address}\n".encode())
        _wait_until_ready(places, record)
    except BaseException:
        os.close(gate)
        clear(places)
        raise
    os.close(gate)
    return sandbox_of(places, record)


def daemon_config(plan: StartPlan) -> dict[str, Any]:
    """`daemon.json`; its paths are those inside the sandbox, where `/run` is its own."""
    return {
        "hosts": ["unix:///run/lyra/docker.sock"],
        "data-root": "/run/data",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "bip": str(network.BRIDGE),
        "default-address-pools": [{"base": str(network.POOL), "size": network.POOL_SIZE}],
        "dns": [network.RESOLVER],
        "dns-opts": ["timeout:2", "attempts:2"],
        "ip6tables": False,
        "cgroup-parent": f"/{plan.places.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "shutdown-timeout": 5,
        "features": {"containerd-snapshotter": plan.store == "containerd"},
    }


def _require_root() -> None:
    if os.geteuid() != 0:
        raise EngineUnavailableError("a sandbox engine needs root, and this is not root", hint=CHOICES)


def _store(suite: str, store: Store | None) -> Store:
    stores = packages.recipe(suite, ubuntu=is_ubuntu()).stores
    if store is not None and store not in stores:
        raise UsageError(f"the {suite} engine has no {store} store", hint=f"choose {' or '.join(stores)}")
    return store or stores[0]


def _running(places: Places, record: Record, suite: str, store: Store) -> Sandbox:
    if (record.suite, record.store) != (suite, store):
        raise PreconditionError(
            f"the sandbox engine runs already, with {record.suite} and the {record.store} store",
            hint="end it first: engine.down",
        )
    _wait_until_ready(places, record)
    return sandbox_of(places, record)


def _fetch(cache: Path, suite: str, progress: Callable[[str], None]) -> Path:
    engine = packages.installed(cache, suite)
    if engine is not None:
        return engine
    missing = [tool for tool in ("apt-get", "dpkg", "unshare") if shutil.which(tool) is None]
    if missing:
        raise EngineUnavailableError(
            f"a sandbox engine is made of Debian packages, and this machine has no {' and no '.join(missing)}",
            hint=CHOICES,
        )
    return packages.fetch(cache, suite, progress)


def _prepare(plan: StartPlan) -> None:
    places = plan.places
    places.data(plan.suite, plan.store).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(places.config / "cli-plugins", ignore_errors=True)
    (places.config / "cli-plugins").mkdir(parents=True)
    for plugin in packages.PLUGINS:
        (places.config / "cli-plugins" / plugin).symlink_to(plan.engine / "cli-plugins" / plugin)
    (places.folder / "daemon.json").write_text(json.dumps(daemon_config(plan), indent=2) + "\n")
    (places.runtime / "inner").mkdir(parents=True, mode=0o700)
    places.runtime.chmod(0o700)
    places.engine.symlink_to(plan.engine)
    places.owner.symlink_to(places.state)


def _launch(plan: StartPlan, gate: int) -> None:
    """Start the namespaces; their first process waits at the gate. It belongs to no session and no caller's pipe."""
    places = plan.places
    command = ["setsid", "--fork", "unshare", *_NAMESPACES, "--"]
    command += [str(plan.engine / "bin" / "tini-static"), "-g", "--", "/bin/sh", str(INIT), str(places.runtime)]
    command += [str(places.data(plan.suite, plan.store)), str(plan.engine), str(places.folder / "daemon.json")]
    closed = ",".join(map(str, network.closed(places.engine)))
    command += [str(os.getpid()), closed, f"{network.BRIDGE.network} {network.POOL}"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    with places.log.open("wb") as log:
        result = subprocess.run(command, stdin=gate, stdout=log, stderr=log, cwd="/", env=environment, check=False)
    if result.returncode:
        raise _start_fault(places, "its namespaces could not be made")


def _wait_for_pids(places: Places, gate: int) -> tuple[int, int]:
    """The numbers of the sandbox's first two processes, as this machine counts."""
    poll = select.poll()
    poll.register(gate, 0)  # reports an error as soon as nobody can read from the gate any more
    pids = places.runtime / "pids"
    deadline = time.monotonic() + _START_WAIT
    while not pids.exists():
        if poll.poll(10) or time.monotonic() > deadline:
            raise _start_fault(places, "its namespaces could not be made")
    first, second = (int(pid) for pid in pids.read_text().split())
    return first, second


def _record(plan: StartPlan, pid: int, uplink: network.Uplink) -> Record:
    started = start_time(pid)
    if started is None:
        raise _start_fault(plan.places, "its first process ended")
    return Record(
        suite=plan.suite,
        store=plan.store,
        pid=pid,
        started=started,
        boot=boot_id(),
        link=uplink.link,
        address=uplink.address,
        memory=plan.memory,
        cpus=plan.cpus,
    )


def _wait_until_ready(places: Places, record: Record) -> None:
    deadline = time.monotonic() + _START_WAIT
    while not _answers(places.socket):
        if not is_alive(record):
            raise _start_fault(places, "its daemon ended")
        if time.monotonic() > deadline:
            raise _start_fault(places, f"it did not answer within {_START_WAIT:.0f} seconds")
        time.sleep(0.02)


def _answers(path: Path) -> bool:
    """Whether the engine answers a ping; it accepts connections some time before."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def _start_fault(places: Places, why: str) -> EngineUnavailableError:
    lines = places.log.read_text(errors="replace").splitlines()[-15:] if places.log.exists() else []
    return EngineUnavailableError(
        f"the sandbox engine did not start: {why}",
        hint=f"its log is {places.log}; it needs a kernel with namespaces, overlay and nf_tables. Or {CHOICES}",
        details=tuple(lines),
    )
