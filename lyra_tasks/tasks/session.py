"""The workspaces of this process: what lasts from task to task, and what each task reads anew."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.errors import StaleError, UsageError
from lyra_tasks.tasks.source_state import SourceState, describe_source_change, read_source_state
from lyra_tasks.tasks.warnings import warn_about_invalid_config, warn_about_secrets, warn_about_todos

if TYPE_CHECKING:
    from invoke.context import Context

    from lyra_tasks.config.load import LoadedConfig
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.tasks.line import Line

_TASKS_THAT_NEED_VALUES = frozenset({"build", "test", "promote", "release"})
_TASKS_THAT_HOLD_THE_CHECKOUT = frozenset(
    {
        *("build", "test", "promote", "clean", "create", "dev.sync", "dev.restart", "dev.stop"),
        *("engine.up", "engine.down", "lock.update"),
    }
)
_DRY_RUNS_THAT_START_AN_ENGINE = frozenset({"build", "lock.update", "clean"})
"""The first ones may need it to resolve bases; `clean` stops it again."""
_WORKFLOW_COMMANDS = frozenset({"build", "test", "release", "promote", "verify", "clean"})
_UNKNOWN_PATH = "the output"


@dataclass
class TaskCall:
    """One call of a task: where it looks for the configuration, and the workspace once it has one."""

    command: str
    context: Context
    config: Path | None
    lines: tuple[Line, ...]
    is_dry_run: bool = False
    started_at: float = field(default_factory=time.monotonic)
    workspace: Workspace | None = None
    hold: ExitStack = field(default_factory=ExitStack)

    @property
    def next_command(self) -> str:
        """The task of Lyra's that the command line runs after this one, or "" if it runs no other, or not this one."""
        if not self.lines or getattr(self.lines[0].running, "command", "") != self.command:
            return ""
        return str(getattr(self.lines[0].following, "command", ""))

    @property
    def directory(self) -> Path:
        """The working directory of the call, with that of `with c.cd(…)`; relative paths are relative to it."""
        directory = Path(os.curdir)
        for name in self.context.command_cwds:
            directory /= Path(name).expanduser()
        return directory


@dataclass
class _ProjectRun:
    """What lasts from task to task of one project: the run, its engine, and the source that was built or tested."""

    workspace: Workspace
    commands: set[str]
    source: SourceState | None = None
    hold: ExitStack = field(default_factory=ExitStack)


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # deleted meanwhile, which is reported where it matters
        return None


_START_DIRECTORY = _working_directory()
_call: ContextVar[TaskCall] = ContextVar("call")
_runs: dict[tuple[Path, str], _ProjectRun] = {}
_runs_lock = threading.Lock()


@contextmanager
def open_call(call: TaskCall) -> Iterator[TaskCall]:
    """Make `call` the one that `workspace` and `call_directory` are about, until the block ends."""
    token = _call.set(call)
    try:
        yield call
        _keep_checkout_for_next_task(call)
    finally:
        call.hold.close()
        _call.reset(token)


def call_directory() -> Path:
    """Return the directory that paths given to the running task are relative to."""
    return _call.get().directory


def is_followed_by(command: str) -> bool:
    """Return whether the line of the running task goes on with this one."""
    return _call.get().next_command == command


def user_path(text: str) -> str:
    """Return a path that was given to the running task, which is relative to the directory of the call."""
    call = _call.get()
    return str(call.directory / Path(text).expanduser()) if text and call.context.command_cwds else text


def arguments_after_dashes() -> tuple[str, ...]:
    """Return what stands after `--` on the line of the running task, each argument as the shell passed it."""
    call = _call.get()
    return call.lines[0].arguments_after_dashes if call.lines else ()


def workspace(*, allow_invalid: bool = False) -> Workspace:
    """Return the workspace of the running task, which reads git and the configuration anew.

    The run is recorded in the journal by its first task; it and the engine connection last.
    `allow_invalid` is for tasks that only stop or show things: they use what is valid of the configuration.
    """
    call = _call.get()
    if call.workspace is None:
        loaded = _load_config(call)
        if loaded.error is not None:
            if not allow_invalid:
                raise loaded.error
            warn_about_invalid_config(loaded.error.message, loaded.error.details)
        with _runs_lock:
            call.workspace = _join_run(call, loaded)
        if call.is_dry_run and call.command not in _DRY_RUNS_THAT_START_AN_ENGINE:
            call.workspace = replace(call.workspace, starts_engine=False)
        if call.command in _TASKS_THAT_HOLD_THE_CHECKOUT and not call.is_dry_run:
            _hold_checkout(call, call.workspace)
        if call.command in _TASKS_THAT_NEED_VALUES:
            warn_about_todos(loaded.file)
            warn_about_secrets(call.workspace)
    return call.workspace


def read_only_workspace() -> Workspace:
    """Return a workspace whose run is not recorded in the journal, for tasks that only look.

    If an earlier task has begun a run in the project, it is that one.
    """
    from lyra_tasks.engine.workspace import open_workspace

    loaded = _load_config(_call.get())
    if _project_key(loaded) in _runs:
        return workspace(allow_invalid=True)
    if loaded.error is not None:
        warn_about_invalid_config(loaded.error.message, loaded.error.details)
    return open_workspace(loaded)


def remember_source() -> None:
    """Remember HEAD, its changes and the configuration, which the running task has built or tested."""
    work = workspace()
    _runs[_project_key(work.loaded)].source = read_source_state(work)


def require_same_source() -> None:
    """Raise StaleError if an earlier task of the run has built or tested another HEAD, index or configuration."""
    work = workspace()
    earlier, current = _runs[_project_key(work.loaded)].source, read_source_state(work)
    if earlier is None or earlier == current:
        return
    change = describe_source_change(earlier, current, work.loaded.file.name)
    raise StaleError(
        f"What was built and tested before `{_call.get().command}` is not what is here: {change}",
        hint="Run `build test` again, after the task that changes it",
    )


def suggest_next_command(next_command: str, purpose: str) -> None:
    """Suggest the command after the running task, unless the line continues or is `--only` a part of it."""
    call = _call.get()
    if console.is_json_mode() or not call.lines:
        return
    commands = [getattr(entry.task, "command", "") for entry in call.lines[0].tasks]
    is_last = [command for command in commands if command in _WORKFLOW_COMMANDS][-1:] == [call.command]
    if is_last and not any(entry.options.get("only") for entry in call.lines[0].tasks):
        console.print(f"next: {console.style(f'`{next_command}`', 'bold')} {purpose}")


def disk_with_least_space(call: TaskCall) -> str:
    """Return the directory that a run writes to whose disk has the least space left."""
    if call.workspace is None:
        return _UNKNOWN_PATH
    paths = call.workspace.paths
    directories = [directory for directory in (paths.root, paths.work, paths.state, paths.cache) if directory.is_dir()]
    return str(min(directories, key=lambda path: shutil.disk_usage(path).free))


def record_task_result(call: TaskCall, exit_code: int, message: str) -> None:
    """Record the result of a task in the journal, if it has opened a workspace."""
    if call.workspace is not None:
        from lyra_tasks.redaction import redact
        from lyra_tasks.rules.secrets import redacted_values

        work = call.workspace
        message = redact(message, redacted_values(work.config, work.root))
        seconds = round(time.monotonic() - call.started_at, 3)
        work.journal.append(work.run, "task", task=call.command, exit_code=exit_code, message=message, seconds=seconds)


def _hold_checkout(call: TaskCall, work: Workspace) -> None:
    """Keep tasks of other processes out that exclude this one; wait for those that are running."""
    from lyra_tasks.task_locks import runs_alone

    between = _runs[_project_key(work.loaded)].hold
    if runs_alone(call.command):
        between.close()
    call.hold.enter_context(work.active_runs.running_task(call.command, work.run))
    between.close()


def _keep_checkout_for_next_task(call: TaskCall) -> None:
    """Hold the checkout until the next task of the line does, so that no `clean` comes between the two."""
    from lyra_tasks.task_locks import runs_alone

    work = call.workspace
    if work is None or call.is_dry_run or runs_alone(call.command):
        return
    between = _runs[_project_key(work.loaded)].hold
    if not call.next_command:
        between.close()
    elif call.command in _TASKS_THAT_HOLD_THE_CHECKOUT:
        between.enter_context(work.active_runs.running_task(call.command, work.run, is_between=True))


def _load_config(call: TaskCall) -> LoadedConfig:
    from lyra_tasks.config.load import find_config, load_config_file
    from lyra_tasks.rules.catalogue import deviations_allowed

    if call.config is None and not os.environ.get("LYRA_CONFIG"):
        _require_near_collection(call)
    file = call.config or find_config(call.directory if call.context.command_cwds else None)
    return load_config_file(file, deviations_allowed())


def _require_near_collection(call: TaskCall) -> None:
    """Raise UsageError if `-r` loaded the tasks of another project than that of the working directory.

    Whoever changes the directory in Python, or by `with c.cd(…)`, has said which project is meant.
    """
    location = call.lines[-1].collection.loaded_from if call.lines else None
    directory = _working_directory()
    if location is None or directory is None or call.context.command_cwds or directory != _START_DIRECTORY:
        return
    if not directory.is_relative_to(Path(location).resolve()):
        raise UsageError(
            f"These tasks were loaded from {location}, which the working directory {directory} is not in",
            hint=f"Change to it: `cd {shlex.quote(location)}`",
        )


def _join_run(call: TaskCall, loaded: LoadedConfig) -> Workspace:
    """Return a workspace in the project's run of this process; a task that the run had before begins a new run."""
    from lyra_tasks.engine.workspace import open_workspace

    project_run = _runs.get(_project_key(loaded))
    if project_run is not None and call.command not in project_run.commands:
        work = open_workspace(loaded, project_run.workspace, continues_run=True)
        project_run.workspace = work
        project_run.commands.add(call.command)
        return work
    work = open_workspace(loaded, project_run.workspace if project_run else None)
    _runs[_project_key(loaded)] = _ProjectRun(work, {call.command}, project_run.source if project_run else None)
    _record_run(call, work)
    return work


def _record_run(call: TaskCall, work: Workspace) -> None:
    from lyra_tasks.records.journal import get_current_user
    from lyra_tasks.redaction import redact
    from lyra_tasks.rules.secrets import redacted_values

    # None of Lyra's options takes a secret, but a command of `dev.exec` might.
    secret_values = redacted_values(work.config, work.root)
    typed = call.lines[-1].arguments if call.lines else (call.command,)
    work.journal.append(
        work.run, "run", user=get_current_user(), command=[redact(argument, secret_values) for argument in typed]
    )


def _project_key(loaded: LoadedConfig) -> tuple[Path, str]:
    return loaded.file, loaded.config.project.name
