"""A lab does not outlive the process that made it.

While it runs, its process holds a lock that the operating system frees, however that process ends. A reaper waits for
that lock; if it is ended too, the next word that talks to the engine finds the lock free. Age decides nothing.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.engine.ownership import Owned, Owner, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.records.journal import Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_FOLDER = "running"
_SUFFIX = ".lock"
_BETWEEN_SCANS = 0.5


@contextmanager
def guarded(engine: Engine, owner: Owner, state: Path) -> Iterator[None]:
    """Everything that this run makes in the block is gone soon after the process has ended, even by SIGKILL.

    A block that ends by itself has taken its things away; an exception leaves the lock for the next sweep to look at.
    """
    path = state / _FOLDER / f"{owner.run}{_SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _start_reaper(engine, owner, path)
        yield
        path.unlink()
    finally:
        os.close(handle)


def sweep(engine: Engine, journal: Journal, project_id: str, state: Path) -> list[Owned]:
    """Remove what runs left whose process is gone; those that still run are not touched."""
    gone: list[Owned] = []
    for path in sorted((state / _FOLDER).glob(f"*{_SUFFIX}")):
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone += reap(engine, Owner(journal, path.name.removesuffix(_SUFFIX), project_id), path)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
    return gone


def crashed_runs(state: Path) -> list[str]:
    """The runs that were killed, and whose things nobody has taken away yet."""
    found = []
    for path in sorted((state / _FOLDER).glob(f"*{_SUFFIX}")):
        with suppress(FileNotFoundError, BlockingIOError):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(path.name.removesuffix(_SUFFIX))
            finally:
                os.close(handle)
    return found


def forget_crashed(state: Path, runs: Iterable[str]) -> None:
    """Everything that these runs left has been taken away."""
    for run in runs:
        (state / _FOLDER / f"{run}{_SUFFIX}").unlink(missing_ok=True)


def reap(engine: Engine, owner: Owner, path: Path) -> list[Owned]:
    """Remove the objects of one dead run, until two scans find none: the engine may still have been making one."""
    gone: list[Owned] = []
    empty = 0
    while empty < 2:
        found = owned(engine, owner.journal.entries(), run=owner.run)
        removed, _ = remove(engine, found)
        owner.removed(engine, removed)
        gone += removed
        empty = 0 if found else empty + 1
        if empty < 2:
            time.sleep(_BETWEEN_SCANS)
    path.unlink(missing_ok=True)
    return gone


def reap_for(journal: Path, project_id: str, path: Path) -> None:
    """What the reaper does once the lock at `path` is free and its run did not end in order."""
    from lyra_tasks.engine.connect import reconnect

    run = path.name.removesuffix(_SUFFIX)
    owner = Owner(Journal(journal), run, project_id)
    gone = reap(reconnect(), owner, path)
    owner.journal.append(run, "reaped", objects=[each.name for each in gone])


def _start_reaper(engine: Engine, owner: Owner, path: Path) -> None:
    """A process of its own session, so that neither Ctrl-C nor a closed terminal reaches it."""
    reaper = subprocess.Popen(
        [sys.executable, "-m", "lyra_tasks.engine.reaper", str(owner.journal.path), owner.project_id, str(path)],
        env={**os.environ, **engine.cli_environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    # it is meant to outlive this process: that is no leak to be warned of
    reaper.returncode = 0
