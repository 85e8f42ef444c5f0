"""A lab does not outlive the process that made it.

While it runs, its process holds a lock that the operating system frees, however that process ends. A reaper waits for
that lock; if it is ended too, the next word that talks to the engine finds the lock free. Age decides nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.engine.objects.ownership import OwnedObject, Owner, list_owned_objects
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.locks import lock_if_finished, start_run
from lyra_tasks.records.journal import Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_LOCK_DIRECTORY = "running"
_LOCK_SUFFIX = ".lock"
_SCAN_INTERVAL_S = 0.5


@dataclass
class OrphanCleanup:
    """What killed runs had left: what is gone now, and what the engine keeps, with its reason."""

    removed: list[OwnedObject] = field(default_factory=list)
    failed: dict[OwnedObject, str] = field(default_factory=dict)

    def merge(self, other: OrphanCleanup) -> None:
        """Take in what another run had left."""
        self.removed += other.removed
        self.failed |= other.failed


def run_lock_path(state: Path, run: str) -> Path:
    """The lock of a run that guards what it makes; it is gone once that is."""
    return state / _LOCK_DIRECTORY / f"{run}{_LOCK_SUFFIX}"


@contextmanager
def hold_lifeline(engine: Engine, owner: Owner, state: Path) -> Iterator[None]:
    """Everything that this run makes in the block is gone soon after the process has ended, even by SIGKILL.

    A block that ends by itself has taken its things away; an exception leaves the lock for the next sweep to look at.
    """
    path = run_lock_path(state, owner.run)
    handle = start_run(path.parent, path.name)
    try:
        _start_reaper(engine, owner, path)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def remove_orphans(engine: Engine, journal: Journal, project_id: str, state: Path) -> OrphanCleanup:
    """Remove what runs left whose process is gone; those that still run are not touched."""
    cleanup = OrphanCleanup()
    for path in _list_run_locks(state):
        with lock_if_finished(path) as has_ended:
            if has_ended:
                cleanup.merge(remove_run_orphans(engine, Owner(journal, _run_id(path), project_id), path))
    return cleanup


def list_crashed_runs(state: Path) -> list[str]:
    """The runs that were killed, and whose things nobody has taken away yet."""
    runs = []
    for path in _list_run_locks(state):
        with lock_if_finished(path) as has_ended:
            if has_ended:
                runs.append(_run_id(path))
    return runs


def forget_crashed_runs(state: Path, runs: Iterable[str]) -> None:
    """Everything that these runs left has been taken away."""
    for run in runs:
        run_lock_path(state, run).unlink(missing_ok=True)


def remove_run_orphans(engine: Engine, owner: Owner, path: Path) -> OrphanCleanup:
    """Remove the objects of one dead run, until two scans remove none: the engine may still have been making one.

    What the engine does not give back, since a stranger's container uses it, keeps the lock: the next word tries again.
    """
    cleanup = OrphanCleanup()
    idle_scans = 0
    while idle_scans < 2:
        removed, cleanup.failed = remove_objects(
            engine, list_owned_objects(engine, owner.journal.entries(), run=owner.run)
        )
        owner.record_removed(engine, removed)
        cleanup.removed += removed
        idle_scans = 0 if removed else idle_scans + 1
        if idle_scans < 2:
            time.sleep(_SCAN_INTERVAL_S)
    if not cleanup.failed:
        path.unlink(missing_ok=True)
    return cleanup


def reap_run(journal: Path, project_id: str, path: Path) -> None:
    """What the reaper does once the lock at `path` is free and its run did not end in order."""
    from lyra_tasks.engine.client.connect import reconnect_engine

    owner = Owner(Journal(journal), _run_id(path), project_id)
    cleanup = remove_run_orphans(reconnect_engine(), owner, path)
    owner.journal.append(owner.run, "reaped", objects=[owned_object.name for owned_object in cleanup.removed])


def _list_run_locks(state: Path) -> list[Path]:
    return sorted((state / _LOCK_DIRECTORY).glob(f"*{_LOCK_SUFFIX}"))


def _run_id(path: Path) -> str:
    return path.name.removesuffix(_LOCK_SUFFIX)


def _start_reaper(engine: Engine, owner: Owner, path: Path) -> None:
    """A process of its own session, so that neither Ctrl-C nor a closed terminal reaches it."""
    reaper = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "lyra_tasks.engine.objects.reaper",
            str(owner.journal.path),
            owner.project_id,
            str(path),
        ],
        env={**os.environ, **engine.cli_environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    # it is meant to outlive this process: that is no leak to be warned of
    reaper.returncode = 0
