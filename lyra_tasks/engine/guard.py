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

from lyra_tasks.engine.ownership import Owned, Owner, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.records.journal import Journal
from lyra_tasks.run import begin_run, if_ended

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_FOLDER = "running"
_SUFFIX = ".lock"
_BETWEEN_SCANS = 0.5


@dataclass
class Swept:
    """What killed runs had left: what is gone now, and what the engine keeps, with its reason."""

    gone: list[Owned] = field(default_factory=list)
    left: dict[Owned, str] = field(default_factory=dict)

    def add(self, other: Swept) -> None:
        """Take in what another run had left."""
        self.gone += other.gone
        self.left |= other.left


def lock_of(state: Path, run: str) -> Path:
    """The lock of a run that guards what it makes; it is gone once that is."""
    return state / _FOLDER / f"{run}{_SUFFIX}"


@contextmanager
def guarded(engine: Engine, owner: Owner, state: Path) -> Iterator[None]:
    """Everything that this run makes in the block is gone soon after the process has ended, even by SIGKILL.

    A block that ends by itself has taken its things away; an exception leaves the lock for the next sweep to look at.
    """
    path = lock_of(state, owner.run)
    handle = begin_run(path.parent, path.name)
    try:
        _start_reaper(engine, owner, path)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def sweep(engine: Engine, journal: Journal, project_id: str, state: Path) -> Swept:
    """Remove what runs left whose process is gone; those that still run are not touched."""
    found = Swept()
    for path in _locks(state):
        with if_ended(path) as ended:
            if ended:
                found.add(reap(engine, Owner(journal, _run_of(path), project_id), path))
    return found


def crashed_runs(state: Path) -> list[str]:
    """The runs that were killed, and whose things nobody has taken away yet."""
    found = []
    for path in _locks(state):
        with if_ended(path) as ended:
            if ended:
                found.append(_run_of(path))
    return found


def forget_crashed(state: Path, runs: Iterable[str]) -> None:
    """Everything that these runs left has been taken away."""
    for run in runs:
        lock_of(state, run).unlink(missing_ok=True)


def reap(engine: Engine, owner: Owner, path: Path) -> Swept:
    """Remove the objects of one dead run, until two scans remove none: the engine may still have been making one.

    What the engine does not give back, since a stranger's container uses it, keeps the lock: the next word tries again.
    """
    swept = Swept()
    empty = 0
    while empty < 2:
        gone, swept.left = remove(engine, owned(engine, owner.journal.entries(), run=owner.run))
        owner.removed(engine, gone)
        swept.gone += gone
        empty = 0 if gone else empty + 1
        if empty < 2:
            time.sleep(_BETWEEN_SCANS)
    if not swept.left:
        path.unlink(missing_ok=True)
    return swept


def reap_for(journal: Path, project_id: str, path: Path) -> None:
    """What the reaper does once the lock at `path` is free and its run did not end in order."""
    from lyra_tasks.engine.connect import reconnect

    owner = Owner(Journal(journal), _run_of(path), project_id)
    swept = reap(reconnect(), owner, path)
    owner.journal.append(owner.run, "reaped", objects=[each.name for each in swept.gone])


def _locks(state: Path) -> list[Path]:
    return sorted((state / _FOLDER).glob(f"*{_SUFFIX}"))


def _run_of(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX)


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
