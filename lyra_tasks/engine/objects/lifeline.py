"""Remove the objects of runs whose process was killed.

A run holds a lock that the operating system releases however the process ends. A reaper process waits for that lock. If
the reaper is killed, too, the next task that connects to the engine finds the lock released.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.engine.objects.ownership import Owner, list_owned_objects, read_object_entries
from lyra_tasks.engine.objects.removal import RemovalResult, remove_objects
from lyra_tasks.locks import lock_if_finished, start_run
from lyra_tasks.processes import create_environment
from lyra_tasks.records.journal import Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

REAPER_MODULE = "lyra_tasks.engine.objects.reaper"
_LOCK_DIRECTORY = "running"
_LOCK_SUFFIX = ".lock"
_SCAN_INTERVAL_S = 0.5


def run_lock_path(state: Path, run: str) -> Path:
    """Return the path of a run's lock, which exists as long as its objects may exist."""
    return state / _LOCK_DIRECTORY / f"{run}{_LOCK_SUFFIX}"


@contextmanager
def hold_lifeline(engine: Engine, owner: Owner, state: Path) -> Iterator[None]:
    """Ensure that objects created in the block are removed soon after this process ends, even by SIGKILL.

    The block removes its own objects. If it raises, the lock stays for the next call of `remove_orphans`.
    """
    path = run_lock_path(state, owner.run)
    handle = start_run(path.parent, path.name)
    try:
        _start_reaper(engine, owner, path)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def remove_orphans(engine: Engine, journal: Journal, project_id: str, state: Path) -> RemovalResult:
    """Remove the objects of all runs whose process has ended."""
    cleanup = RemovalResult()
    with closing(_lock_crashed_runs(state)) as paths:
        for path in paths:
            result = remove_run_orphans(engine, Owner(journal, path.stem, project_id), path)
            cleanup.removed += result.removed
            cleanup.failed |= result.failed
    return cleanup


def list_crashed_runs(state: Path) -> list[str]:
    """Return the killed runs whose objects have not been removed yet."""
    return [path.stem for path in _lock_crashed_runs(state)]


def forget_crashed_runs(state: Path, runs: Iterable[str]) -> None:
    """Remove the locks of killed runs after their objects have been removed."""
    for run in runs:
        run_lock_path(state, run).unlink(missing_ok=True)


def remove_run_orphans(engine: Engine, owner: Owner, path: Path) -> RemovalResult:
    """Remove the objects of one killed run until two scans find none, since the engine may still be creating one.

    The lock stays if an object could not be removed, for example because a foreign container uses it.
    """
    cleanup = RemovalResult()
    idle_scans = 0
    while idle_scans < 2:
        owned_objects = list_owned_objects(engine, read_object_entries(owner.journal), run=owner.run)
        result = remove_objects(engine, owner, owned_objects)
        cleanup.removed += result.removed
        cleanup.failed = result.failed
        idle_scans = 0 if result.removed else idle_scans + 1
        if idle_scans < 2:
            time.sleep(_SCAN_INTERVAL_S)
    if not cleanup.failed:
        path.unlink(missing_ok=True)
    return cleanup


def reap_run(journal: Path, project_id: str, path: Path) -> None:
    """Remove the orphans of a run on behalf of the reaper, once the lock at `path` is released."""
    from lyra_tasks.engine.client.connect import reconnect_engine

    owner = Owner(Journal(journal), path.stem, project_id)
    cleanup = remove_run_orphans(reconnect_engine(), owner, path)
    owner.journal.append(owner.run, "orphans-removed", objects=[owned_object.name for owned_object in cleanup.removed])


def _lock_crashed_runs(state: Path) -> Generator[Path, None, None]:
    """Yield the locks of runs whose process has ended, each held until the next one."""
    for path in sorted((state / _LOCK_DIRECTORY).glob(f"*{_LOCK_SUFFIX}")):
        with lock_if_finished(path) as has_ended:
            if has_ended:
                yield path


def _start_reaper(engine: Engine, owner: Owner, path: Path) -> None:
    """Start the reaper in its own session, out of reach of Ctrl-C and of a closed terminal."""
    reaper = subprocess.Popen(
        [sys.executable, "-m", REAPER_MODULE, str(owner.journal.path), owner.project_id, str(path)],
        env=create_environment({**engine.cli_environment, "PYTHONPATH": os.pathsep.join(sys.path)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    # avoids the ResourceWarning about a child that outlives this process, which is intended here
    reaper.returncode = 0
