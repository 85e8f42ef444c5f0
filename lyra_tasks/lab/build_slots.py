"""How many images are built at once on an engine, by all checkouts of this user together.

An engine limits neither CPUs nor memory of the steps of a build, so that the number of images is all there is to limit.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.lab.admission import compute_lab_capacity
from lyra_tasks.locks import POLL_INTERVAL_S, SILENT_WAIT_S, try_lock

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@contextmanager
def hold_build_slots(
    directory: Path, total: int, wanted: int, holder: str, before_wait: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, ...]]:
    """Hold at least one and at most `wanted` of `total` slots during the block, and yield their file descriptors.

    Waits while others hold all of them, and says after half a second for whom. `before_wait` is called again and again,
    and may raise to end the wait. A slot is free again when its holder has ended, and the children that inherited the
    descriptor.
    """
    directory.mkdir(parents=True, exist_ok=True)
    silent_until = time.monotonic() + SILENT_WAIT_S
    handles: list[int] = []
    try:
        while not handles:
            for number in range(total):
                if len(handles) == wanted:
                    break
                handle = os.open(directory / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                handles.append(handle)
                if not try_lock(handle, fcntl.LOCK_EX):
                    os.close(handles.pop())
            if not handles:
                if silent_until and time.monotonic() >= silent_until:
                    silent_until = 0.0
                    console.info(f"Waiting for a build of {_read_holders(directory, total)} …")
                before_wait()
                time.sleep(POLL_INTERVAL_S)
        for handle in handles:
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(errors="surrogateescape"), 0)
        yield tuple(handles)
    finally:
        for handle in handles:
            os.close(handle)


def find_slots_directory(work: Workspace) -> Path:
    """Return the directory with the slots of the engine of a workspace."""
    return compute_lab_capacity(work).lock.with_suffix(".builds")


def _read_holders(directory: Path, total: int) -> str:
    """Return the projects and processes that hold the slots."""
    names = {(directory / str(number)).read_text(errors="replace") for number in range(total)}
    return " and ".join(sorted(map(console.escape, names - {""}))) or "another project"
