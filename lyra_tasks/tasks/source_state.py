"""The source that `build` and `test` have seen, to notice when a task between them and `promote` changes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks import console

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class SourceState:
    """What `build` and `test` of a line have seen; `changed_paths` are without the files that Lyra writes."""

    commit: str
    changed_paths: frozenset[str]
    config_digest: str


def read_source_state(work: Workspace) -> SourceState:
    """Return the state of a checkout's source."""
    from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME

    lock_file = os.path.relpath(work.root / LOCK_FILE_NAME, work.git.top)
    paths = frozenset(work.git.changed_paths) - {lock_file}
    return SourceState(work.git.commit, paths, work.loaded.digest)


def describe_source_change(earlier: SourceState, current: SourceState, config_name: str) -> str:
    """Return what differs between two states that are not equal."""
    if earlier.commit != current.commit:
        return f"HEAD is {current.commit[:12]} now, was {earlier.commit[:12]}"
    if earlier.config_digest != current.config_digest:
        return f"{config_name} has changed"
    paths = earlier.changed_paths ^ current.changed_paths
    return f"changed meanwhile: {', '.join(map(console.escape, sorted(paths)))}"
