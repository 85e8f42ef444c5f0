"""Watch what services write to their root file systems, which the engine does not limit (R10).

Volumes and `/tmp` have a size that the kernel enforces. A writable root has none: it is measured now and then, and a
service whose root has grown beyond its `limits.disk` is killed. Between two samples it can write as much as it likes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.engine.objects.containers import kill_containers, wait_for_exit, wait_for_restart
from lyra_tasks.engine.objects.disk_usage import read_written_bytes
from lyra_tasks.errors import CheckFailedError, LyraError
from lyra_tasks.processes import create_environment
from lyra_tasks.records.journal import Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.lab.service import RunningService

DISK_EXCEEDED_EVENT = "disk-exceeded"
_INTERVAL_S = 2.0
_RESTART_TIMEOUT_S = 5.0
_MAX_LOAD = 0.05  # of the time that measuring may take, since the engine walks through all files
_GUARD_MODULE = "lyra_tasks.lab.disk"


@dataclass(frozen=True)
class WatchedRoot:
    """A container with a writable root, and how many bytes it may write."""

    service: str
    container: str
    limit: int

    def error(self, written_bytes: int) -> CheckFailedError:
        """Return the error for a root that has grown beyond its limit."""
        return CheckFailedError(
            f"{self.service} was ended: {describe_excess(written_bytes, self.limit)}",
            hint=f"Raise [services.{self.service}.limits] disk, or let it write to a volume or to /tmp",
        )


def describe_excess(written_bytes: int, limit: int) -> str:
    """Return what a service that was ended has done."""
    written, allowed = console.format_bytes(written_bytes), console.format_bytes(limit)
    return f"it wrote {written} to its root file system, its disk limit is {allowed}"


def list_writable_roots(services: Mapping[str, RunningService]) -> tuple[WatchedRoot, ...]:
    """Return the services whose root file system is writable."""
    return tuple(
        WatchedRoot(name, service.id, service.planned.service.limits.disk)
        for name, service in services.items()
        if not service.planned.payload["HostConfig"]["ReadonlyRootfs"]
    )


class DiskWatch:
    """Measures writable roots in a thread, and kills a container that is over its limit after `on_excess`."""

    def __init__(
        self, engine: Engine, roots: tuple[WatchedRoot, ...], on_excess: Callable[[WatchedRoot, int], None]
    ) -> None:
        self._engine, self._on_excess = engine, on_excess
        self._roots = list(roots)
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start measuring."""
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Stop measuring, soon."""
        self._stopped.set()

    def measure(self) -> None:
        """Measure all roots now."""
        with self._lock:
            for root in list(self._roots):
                written_bytes = read_written_bytes(self._engine, root.container)
                if written_bytes is not None and written_bytes > root.limit:
                    self._roots.remove(root)
                    self._on_excess(root, written_bytes)
                    kill_containers(self._engine, [root.container])

    def _watch(self) -> None:
        pause = _INTERVAL_S
        while self._roots and not self._stopped.wait(pause):
            started = time.monotonic()
            with suppress(LyraError):  # a lost engine is reported by the main thread
                self.measure()
            pause = max(_INTERVAL_S, (time.monotonic() - started) / _MAX_LOAD)


def start_guard(engine: Engine, journal: Journal, run: str, roots: tuple[WatchedRoot, ...]) -> None:
    """Start a process that watches services which keep running when this one ends, and ends with them."""
    if not roots:
        return
    arguments = [f"{root.service}={root.container}={root.limit}" for root in roots]
    guard = subprocess.Popen(
        [sys.executable, "-m", _GUARD_MODULE, str(journal.path), run, *arguments],
        env=create_environment({**engine.cli_environment, "PYTHONPATH": os.pathsep.join(sys.path)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    guard.returncode = 0  # no ResourceWarning about a child that outlives this process


def guard_roots(journal: Journal, run: str, roots: tuple[WatchedRoot, ...]) -> None:
    """Watch roots until none of the containers runs any more, or is restarted; record each that is ended."""
    from lyra_tasks.engine.client.connect import reconnect_engine

    def record(root: WatchedRoot, written_bytes: int) -> None:
        journal.append(
            run,
            DISK_EXCEEDED_EVENT,
            service=root.service,
            id=root.container,
            written=written_bytes,
            limit=root.limit,
        )

    engine = reconnect_engine()
    watch = DiskWatch(engine, roots, record)
    watch.start()
    for root in roots:
        wait_for_exit(engine, root.container)
        while wait_for_restart(engine, root.container, _RESTART_TIMEOUT_S):
            wait_for_exit(engine, root.container)
    watch.stop()


def main(journal: str, run: str, *arguments: str) -> None:
    """Guard the roots in the arguments, `SERVICE=CONTAINER=LIMIT`."""
    fields = [argument.split("=") for argument in arguments]
    roots = tuple(WatchedRoot(service, container, int(limit)) for service, container, limit in fields)
    with suppress(LyraError):  # the engine has ended, and its containers with it
        guard_roots(Journal(Path(journal)), run, roots)


if __name__ == "__main__":
    main(*sys.argv[1:])
