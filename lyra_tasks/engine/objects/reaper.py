"""The reaper's program: a small process that outlives a killed run by as long as it takes to clean up after it.

It waits without having imported anything of weight, since there is one for every running lab.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def main(journal: str, project_id: str, lock: str) -> None:
    """Wait until the process of a run is gone; clean up unless it has ended in order and removed its lock."""
    handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink == 0:
        return
    from lyra_tasks.engine.objects.lifeline import reap_run

    reap_run(Path(journal), project_id, Path(lock))


if __name__ == "__main__":
    main(*sys.argv[1:])
