"""The workspace that all words of one command line share, and what the journal keeps of each word."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from lyra_tasks.config.load import LoadedConfig
    from lyra_tasks.engine.workspace import Workspace

_is_open = False


@dataclass(frozen=True)
class TaskRun:
    """A word that is running."""

    name: str
    started_at: float


def workspace(*, allow_invalid: bool = False) -> Workspace:
    """The workspace of this process, opened on first use; its run is written into the journal then.

    `in_part` is for words that only end or show what was made: they go on with what is valid of the configuration.
    """
    loaded = _loaded_config()
    if loaded.error is not None:
        if not allow_invalid:
            raise loaded.error
        _warn_about(loaded.error)
    return _opened_workspace()


def read_only_workspace() -> Workspace:
    """The workspace for a word that only looks, as often as somebody likes: what is looked at is not journaled.

    It is read anew each time, unless a word before it on the line has opened one.
    """
    if _is_open:
        return _opened_workspace()
    from lyra_tasks.engine.workspace import open_workspace

    loaded = _load_config()
    if loaded.error is not None:
        _warn_about(loaded.error)
    return open_workspace(loaded)


@cache
def _loaded_config() -> LoadedConfig:
    return _load_config()


def _load_config() -> LoadedConfig:
    from lyra_tasks.config.load import load_partial_config
    from lyra_tasks.rules.catalogue import deviations_allowed

    return load_partial_config(rules=deviations_allowed())


@cache
def _warn_about(error: ConfigurationError) -> None:
    console.warn(f"{error.message}; going on with what is right in it")
    for line in error.details:
        console.info(f"  {line}")


@cache
def _opened_workspace() -> Workspace:
    global _is_open
    from lyra_tasks.engine.workspace import open_workspace
    from lyra_tasks.records.journal import get_current_user

    work = open_workspace(_loaded_config())
    _warn_about_todos(work)
    work.journal.append(work.run, "run", user=get_current_user(), command=_redacted_command_line(work))
    _is_open = True
    return work


def _warn_about_todos(work: Workspace) -> None:
    """What `init` left open is said in every run that makes something, until it is done."""
    from lyra_tasks import console
    from lyra_tasks.config.discovery import display_path, list_todos

    if not {"build", "test", "promote", "release"} & {
        argument for argument in sys.argv[1:] if not argument.startswith("-")
    }:
        return
    for todo in list_todos(work.loaded.file.read_text(encoding="utf-8")):
        console.warn(f"{display_path(work.loaded.file)}:{todo.line}: TODO: {todo.text}")


def disk_with_least_space() -> str:
    """The folder, of those that a run writes to, whose disk has least room."""
    if not _is_open:
        return "the project"
    paths = _opened_workspace().paths
    directories = [directory for directory in (paths.root, paths.work, paths.state, paths.cache) if directory.is_dir()]
    return str(min(directories, key=lambda path: shutil.disk_usage(path).free))


def start_task_run(name: str) -> TaskRun:
    """Note the start of a word."""
    return TaskRun(name, time.monotonic())


def finish_task_run(task_run: TaskRun, exit_code: int, message: str) -> None:
    """Journal a word's result, if it came as far as to have a workspace."""
    if _is_open:
        work = _opened_workspace()
        seconds = round(time.monotonic() - task_run.started_at, 3)
        work.journal.append(work.run, "word", word=task_run.name, exit_code=exit_code, message=message, seconds=seconds)


def _redacted_command_line(work: Workspace) -> list[str]:
    """The words as they were typed; none of Lyra's options takes a secret, a command of `dev.exec` might."""
    from lyra_tasks.rules.secrets import redact, redacted_values

    secret_values = redacted_values(work.config, work.root)
    return [redact(argument, secret_values) for argument in sys.argv[1:]]
