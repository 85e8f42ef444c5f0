"""The reaper process, which removes the objects of a killed run.

A module of its own, since it must stay small in memory: one reaper waits beside each run and imports the rest only for
the cleanup.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def main(journal: str, project_id: str, lock: str) -> None:
    """Wait until the process of a run has ended, and clean up unless the run has removed its lock."""
    handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink == 0:
        return
    from lyra_tasks.engine.objects.lifeline import reap_run

    reap_run(Path(journal), project_id, Path(lock))


if __name__ == "__main__":
    main(*sys.argv[1:])
