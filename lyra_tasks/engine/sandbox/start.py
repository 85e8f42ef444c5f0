"""Start a private engine: plan it, create namespaces with a waiting first process, and then let the daemon run."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.engine.debian.mirror import is_ubuntu
from lyra_tasks.engine.sandbox.cgroups import add_to_cgroup, create_cgroup
from lyra_tasks.engine.sandbox.layout import (
    Sandbox,
    SandboxPaths,
    SandboxRecord,
    StoreKind,
    answers_ping,
    is_sandbox_process_alive,
    read_boot_id,
    read_sandbox_record,
    read_start_ticks,
    to_sandbox,
    write_sandbox_record,
)
from lyra_tasks.engine.sandbox.network import (
    ADDRESS_POOL,
    BRIDGE_ADDRESS,
    POOL_PREFIX_LENGTH,
    RESOLVER_ADDRESS,
    create_uplink,
    list_blocked_networks,
)
from lyra_tasks.engine.sandbox.obstacles import is_chroot
from lyra_tasks.engine.sandbox.packages import NO_ENGINE_HINT, PLUGINS, fetch_engine, resolve_suite, select_recipe
from lyra_tasks.engine.sandbox.stop import clear_sandbox
from lyra_tasks.engine.sandbox.stray import require_no_stray_sandbox
from lyra_tasks.errors import EngineUnavailableError, PreconditionError, UsageError
from lyra_tasks.locks import file_lock

INIT_SCRIPT = Path(__file__).with_name("init.sh")
_NAMESPACES = ("--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL", "--net", "--ipc", "--uts")
_START_TIMEOUT_S = 60.0  # a first start from a slow disk
_PING_TIMEOUT_S = 2.0
_MIN_MEMORY_BYTES = 1 << 30
_MIN_CPUS = 0.5
_LOCK_TIMEOUT_S = 1200.0  # another start may be downloading
# BuildKit keeps log and trace of each build until it is beyond both limits: by default, those of two days.
_BUILD_HISTORY = {"maxEntries": 20, "maxAge": "1m"}


@dataclass(frozen=True)
class SandboxPlan:
    """A planned private engine; `memory` is in bytes. It starts without limits that it cannot have, if it may."""

    paths: SandboxPaths
    engine: Path
    suite: str
    store: StoreKind
    memory: int | None
    cpus: float | None
    are_limits_required: bool = True


def launch_sandbox(
    state: Path,
    *,
    cache: Path,
    suite: str = "trixie",
    store: StoreKind | None = None,
    memory: int | None = None,
    cpus: float | None = None,
    host_share: float | None = None,
    progress: Callable[[str], None] = console.info,
) -> Sandbox:
    """Return the private engine of a state directory and start it if needed; a failed start leaves nothing.

    `memory` (in bytes) and `cpus` limit everything in it, or the `host_share` of this machine, where its kernel can.
    `store` defaults to the suite's preferred one.
    """
    if os.geteuid() != 0:
        raise EngineUnavailableError("A private engine needs root", hint=NO_ENGINE_HINT)
    suite = resolve_suite(suite)
    selected_store = _select_store(suite, store)
    paths = SandboxPaths(state)
    with file_lock(paths.lock, resource="the private engine", timeout=_LOCK_TIMEOUT_S):
        record = read_sandbox_record(paths)
        if record is not None and is_sandbox_process_alive(record):
            if (record.suite, record.store) != (suite, selected_store):
                raise PreconditionError(
                    f"The private engine is already running with {record.suite} and the {record.store} store",
                    hint="Run `engine.down` first",
                )
            _wait_until_ready(paths, record)
            return to_sandbox(paths, record)
        require_no_stray_sandbox(state)
        clear_sandbox(paths)
        if is_chroot():
            raise EngineUnavailableError(
                "A private engine cannot run in a chroot: commands in its containers would reach the files outside",
                hint=f"Run this command outside of the chroot, or in a container. {NO_ENGINE_HINT}",
            )
        engine = fetch_engine(cache, suite, progress)
        if host_share is not None:
            memory, cpus = compute_shared_limits(host_share)
        plan = SandboxPlan(paths, engine, suite, selected_store, memory, cpus, are_limits_required=host_share is None)
        return run_sandbox_plan(plan)


def run_sandbox_plan(plan: SandboxPlan) -> Sandbox:
    """Start a planned engine and wait until it is ready; a failed start leaves nothing running."""
    paths = plan.paths
    _prepare_directories(plan)
    gate_reader, gate = os.pipe()
    try:
        try:
            is_limited = create_cgroup(
                paths.name, memory=plan.memory, cpus=plan.cpus, is_required=plan.are_limits_required
            )
            _launch_namespaces(plan, gate_reader)
        finally:
            os.close(gate_reader)
        first, second = _wait_for_pids(paths, gate)
        add_to_cgroup(paths.name, [first, second])
        uplink = create_uplink(paths.engine, first, paths.name)
        start_ticks = read_start_ticks(first)
        if start_ticks is None:
            raise _start_error(paths, "its first process exited")
        record = SandboxRecord(
            suite=plan.suite,
            store=plan.store,
            pid=first,
            start_ticks=start_ticks,
            boot_id=read_boot_id(),
            link=uplink.link,
            address=uplink.address,
            memory=plan.memory if is_limited else None,
            cpus=plan.cpus if is_limited else None,
        )
        write_sandbox_record(paths, record)
        os.write(gate, f"{uplink.gateway} {uplink.address}\n".encode())
        _wait_until_ready(paths, record)
    except BaseException:
        os.close(gate)
        clear_sandbox(paths)
        raise
    os.close(gate)
    return to_sandbox(paths, record)


def compute_shared_limits(host_share: float) -> tuple[int, float]:
    """Return the memory (bytes) and CPUs of this machine that an engine may take, enough for itself in any case."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = float(os.cpu_count() or 1)
    return max(int(memory * host_share), min(memory, _MIN_MEMORY_BYTES)), max(cpus * host_share, min(cpus, _MIN_CPUS))


def create_daemon_config(plan: SandboxPlan) -> dict[str, Any]:
    """Return the content of `daemon.json`, with paths as they are inside the sandbox, which has its own `/run`."""
    return {
        "hosts": ["unix:///run/lyra/docker.sock"],
        "data-root": "/run/data",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "bip": str(BRIDGE_ADDRESS),
        "default-address-pools": [{"base": str(ADDRESS_POOL), "size": POOL_PREFIX_LENGTH}],
        "dns": [RESOLVER_ADDRESS],
        "dns-opts": ["timeout:2", "attempts:2"],
        "ip6tables": False,
        "cgroup-parent": f"/{plan.paths.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "shutdown-timeout": 5,
        "features": {"containerd-snapshotter": plan.store == "containerd"},
        "builder": {"history": _BUILD_HISTORY},
    }


def _select_store(suite: str, store: StoreKind | None) -> StoreKind:
    stores = select_recipe(suite, ubuntu=is_ubuntu()).stores
    if store is not None and store not in stores:
        raise UsageError(f"The {suite} engine has no {store} store", hint=f"Choose {' or '.join(stores)}")
    return store or stores[0]


def _prepare_directories(plan: SandboxPlan) -> None:
    paths = plan.paths
    plugins = paths.config / "cli-plugins"
    paths.data(plan.suite, plan.store).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(plugins, ignore_errors=True)
    plugins.mkdir(parents=True)
    for plugin in PLUGINS:
        (plugins / plugin).symlink_to(plan.engine / "cli-plugins" / plugin)
    (paths.directory / "daemon.json").write_text(json.dumps(create_daemon_config(plan), indent=2) + "\n")
    (paths.runtime / "inner").mkdir(parents=True, mode=0o700)
    paths.runtime.chmod(0o700)
    paths.engine.symlink_to(plan.engine)
    paths.owner.symlink_to(paths.state)


def _launch_namespaces(plan: SandboxPlan, gate: int) -> None:
    """Start the namespaces in a session of their own; their first process waits at the gate."""
    paths = plan.paths
    command = ["setsid", "--fork", "unshare", *_NAMESPACES, "--"]
    command += [str(plan.engine / "bin" / "tini-static"), "-g", "--", "/bin/sh", str(INIT_SCRIPT), str(paths.runtime)]
    command += [str(paths.data(plan.suite, plan.store)), str(plan.engine), str(paths.directory / "daemon.json")]
    blocked = ",".join(map(str, list_blocked_networks(paths.engine)))
    command += [str(os.getpid()), blocked, f"{BRIDGE_ADDRESS.network} {ADDRESS_POOL}"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    paths.log.write_bytes(b"")
    with paths.log.open("ab") as log:  # `limit_log` shortens it
        result = subprocess.run(command, stdin=gate, stdout=log, stderr=log, cwd="/", env=environment, check=False)
    if result.returncode:
        raise _start_error(paths, "its namespaces could not be created")


def _wait_for_pids(paths: SandboxPaths, gate: int) -> tuple[int, int]:
    """Return the ids of the sandbox's first two processes outside the sandbox."""
    poll = select.poll()
    poll.register(gate, 0)  # reports an error as soon as the reading end is closed
    pids = paths.runtime / "pids"
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not pids.exists():
        if poll.poll(10) or time.monotonic() > deadline:
            raise _start_error(paths, "its namespaces could not be created")
    first, second = map(int, pids.read_text().split())
    return first, second


def _wait_until_ready(paths: SandboxPaths, record: SandboxRecord) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers_ping(paths.socket, _PING_TIMEOUT_S):
        if not is_sandbox_process_alive(record):
            raise _start_error(paths, "its daemon exited")
        if time.monotonic() > deadline:
            raise _start_error(paths, f"it did not respond within {_START_TIMEOUT_S:.0f} seconds")
        time.sleep(0.02)


def _start_error(paths: SandboxPaths, reason: str) -> EngineUnavailableError:
    lines = paths.log.read_text(errors="replace").splitlines()[-15:] if paths.log.exists() else []
    return EngineUnavailableError(
        f"The private engine did not start: {reason}",
        hint=f"Check {paths.log} and that the kernel has namespaces, overlay and nf_tables. {NO_ENGINE_HINT}",
        details=tuple(lines),
    )
