"""The workspace that all tasks of one command line share, and their results in the journal."""

from __future__ import annotations

import shutil
import sys
import time
from functools import cache
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from lyra_tasks.config.load import LoadedConfig
    from lyra_tasks.engine.workspace import Workspace

_is_open = False


def workspace(*, allow_invalid: bool = False) -> Workspace:
    """Return the workspace of this process; the first call opens it and records the run in the journal.

    `allow_invalid` is for tasks that only stop or show things: they use what is valid of the configuration.
    """
    loaded = _loaded_config()
    if loaded.error is not None:
        if not allow_invalid:
            raise loaded.error
        _warn_about(loaded.error)
    return _opened_workspace()


def read_only_workspace() -> Workspace:
    """Return a workspace whose run is not recorded in the journal, for tasks that only look.

    It is read again each time, unless an earlier task on the line has opened one.
    """
    if _is_open:
        return _opened_workspace()
    from lyra_tasks.engine.workspace import open_workspace

    loaded = _load_config()
    if loaded.error is not None:
        _warn_about(loaded.error)
    return open_workspace(loaded)


def disk_with_least_space() -> str:
    """Return the directory that a run writes to whose disk has the least space left."""
    if not _is_open:
        return "the output"
    paths = _opened_workspace().paths
    directories = [directory for directory in (paths.root, paths.work, paths.state, paths.cache) if directory.is_dir()]
    return str(min(directories, key=lambda path: shutil.disk_usage(path).free))


def record_task_result(name: str, started_at: float, exit_code: int, message: str) -> None:
    """Record a task's result in the journal, if a workspace was opened; `started_at` is monotonic."""
    if _is_open:
        work = _opened_workspace()
        seconds = round(time.monotonic() - started_at, 3)
        work.journal.append(work.run, "task", task=name, exit_code=exit_code, message=message, seconds=seconds)


def _load_config() -> LoadedConfig:
    from lyra_tasks.config.load import load_partial_config
    from lyra_tasks.rules.catalogue import deviations_allowed

    return load_partial_config(rules=deviations_allowed())


_loaded_config = cache(_load_config)


@cache
def _warn_about(error: ConfigurationError) -> None:
    console.warn(f"{error.message}; continuing with its valid parts")
    for line in error.details:
        console.info(f"  {line}")


@cache
def _opened_workspace() -> Workspace:
    global _is_open
    from lyra_tasks.engine.workspace import open_workspace
    from lyra_tasks.records.journal import get_current_user
    from lyra_tasks.redaction import redact
    from lyra_tasks.rules.secrets import redacted_values

    work = open_workspace(_loaded_config())
    _warn_about_todos(work)
    # None of Lyra's options takes a secret, but a command of `dev.exec` might.
    secret_values = redacted_values(work.config, work.root)
    command = [redact(argument, secret_values) for argument in sys.argv[1:]]
    work.journal.append(work.run, "run", user=get_current_user(), command=command)
    _is_open = True
    return work


def _warn_about_todos(work: Workspace) -> None:
    """Warn about what `init` left open in the configuration, before a task that relies on it."""
    from lyra_tasks.config.load import list_todos
    from lyra_tasks.files import display_path

    if {"build", "test", "promote", "release"}.isdisjoint(sys.argv[1:]):
        return
    for todo in list_todos(work.loaded.file.read_text(encoding="utf-8")):
        console.warn(f"{display_path(work.loaded.file)}:{todo.line}: TODO: {todo.text}")
