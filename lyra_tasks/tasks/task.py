"""The Task class and decorator of all Lyra tasks: what their parameters mean, and how their errors are reported."""

from __future__ import annotations

import copy
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from lyra_tasks import console
from lyra_tasks.errors import InterruptedRunError, LyraError, UsageError, from_os_error
from lyra_tasks.files import standard_umask
from lyra_tasks.tasks.line import (
    Line,
    find_lines,
    find_parsed_arguments,
    is_followed_by_value,
    is_run_by_invoke,
    list_short_names,
    name_program,
)
from lyra_tasks.tasks.session import TaskCall, disk_with_least_space, open_call, record_task_result
from lyra_tasks.tasks.shadowing import require_own_modules

P = ParamSpec("P")
R = TypeVar("R")

_SHARED_HELP = {
    "dry_run": "Print the plan without changing anything (applies to all tasks given)",
    "json": "Print one JSON document per task to stdout; messages go to stderr",
    "yes": "Do not ask for confirmation",
    "quiet": "Print only warnings and errors",
}
_HELP_OPTIONS = frozenset({"--help", "-h"})
_SHORT_OPTIONS = frozenset({"image", "service", "follow"})
_MAX_COUNT = 1000


class TaskError(Exit):
    """A task that other Python code called has failed.

    Attributes:
        message: What happened.
        hint: What to do; may be empty.
        details: Further lines, such as the end of a log.
        code: The documented exit code. The program ends with it, and prints the error, if nobody catches it.
    """

    code: int
    hint: str
    details: tuple[str, ...]

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = (), code: int = 1) -> None:
        super().__init__(_Message(message, hint, details), code)
        self.hint = console.name_program(hint)
        self.details = details


class CommandExitError(LyraError):
    """A command in a container has ended with its own exit code, which it has explained itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Message(str):
    """The message of an error; printed, as Invoke does at the end of a program, it has details and hint as well."""

    _text: str

    def __new__(cls, message: str, hint: str, details: tuple[str, ...]) -> _Message:
        """Keep what `console.error` would show."""
        text = super().__new__(cls, message)
        text._text = console.format_error(message, hint, details)
        return text

    def __str__(self) -> str:
        return self._text


class LyraTask(Task, Generic[P, R]):  # type: ignore[type-arg]
    """An Invoke task that does what its parameters say, wherever it is called from.

    `command` is its name in Lyra's own collection, `config` a configuration that it is bound to. Parameters in
    `python_only` are no options of the command line.
    """

    command: str = ""
    config: Path | None = None
    python_only: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Compare the configuration, too: Invoke runs equal tasks of a line once."""
        return super().__eq__(other) and isinstance(other, LyraTask) and self.config == other.config

    __hash__ = Task.__hash__

    def bind(self, config: Path) -> LyraTask[P, R]:
        """Return this task for the project of one configuration file."""
        bound = copy.copy(self)
        bound.config = config
        return bound

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Give only three options a short form; Invoke would take the first letter that is free.

        A help text stays for the next time that the arguments are listed.
        """
        help_texts = dict(self.help)
        options: dict[str, Any] = super().arg_opts(name, default, taken_names)
        self.help = help_texts
        if name in _SHORT_OPTIONS:
            options["names"] = [name, name[0]]
        return options

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:  # noqa: ARG002
        """Return the task's arguments, with stricter rules than Invoke's.

        A repeatable option requires a value, which Invoke would silently treat as not given. A number is checked by
        the task, since Invoke ends in a traceback. A positional argument with a default is positional only before a
        path, since Invoke would take the next task of the line for its value. With `--help` nothing is positional.
        """
        arguments = [
            argument
            for argument in super().get_arguments(ignore_unknown_help=True)
            if argument.name not in self.python_only
        ]
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
            if argument.kind is int:
                argument.kind = str
            if argument.positional and not _HELP_OPTIONS.isdisjoint(find_parsed_arguments()):
                argument.positional = False
            if argument.positional and argument.default is not None:
                argument.positional = is_followed_by_value(self, str(argument.name))
                argument.default = None if argument.positional else argument.default
        return arguments

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task, journal its result and report its errors.

        Returns:
            The value that `--json` prints, as a frozen result.

        Raises:
            TaskError: The task failed and Python code has called it; on a command line the error is shown instead.
        """
        lines = find_lines()
        arguments = inspect.signature(self.body).bind(*args, **kwargs)
        arguments.apply_defaults()
        options = self._shared_options(arguments.arguments, lines)
        arguments.arguments.update({name: value for name, value in options.items() if name in arguments.arguments})
        with (
            console.output_of_task(
                json_mode=options["json"],
                quiet=options["quiet"],
                program=name_program(lines),
                commands=self._list_commands(lines),
            ),
            _signals_as_interrupt(),
            open_call(
                TaskCall(self.command, cast("Context", args[0]), self.config, lines, is_dry_run=options["dry_run"])
            ) as call,
        ):
            return self._run(call, arguments, is_on_line=is_run_by_invoke(sys._getframe(1)))

    def _run(self, call: TaskCall, arguments: inspect.BoundArguments, *, is_on_line: bool) -> R:
        try:
            self._convert_values(arguments.arguments)
            require_own_modules()
            with standard_umask():
                result = super().__call__(*arguments.args, **arguments.kwargs)
        except LyraError as error:
            raise _report_error(call, error, is_on_line=is_on_line) from error
        except OSError as error:
            known_error = from_os_error(error, disk_with_least_space(call))
            if known_error is None:
                raise
            raise _report_error(call, known_error, is_on_line=is_on_line) from error
        except KeyboardInterrupt as error:
            record_task_result(call, InterruptedRunError.exit_code, "interrupted")
            if not call.lines:
                raise
            if not _only_shows(self.command):
                console.error("Interrupted; everything this run created was removed")
            raise Exit(code=InterruptedRunError.exit_code) from error
        record_task_result(call, 0, "")
        return cast("R", result)

    def _shared_options(self, values: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, bool]:
        """Return the options that hold for all Lyra tasks of a line: as given to this one, or to another on the line.

        `build --dry-run test` must not test. Options of the same name that belong to other tasks do not count.
        """
        given = [entry.options for line in lines for entry in line.tasks if isinstance(entry.task, LyraTask)]
        options = {name: any(bool(source.get(name)) for source in (values, *given)) for name in _SHARED_HELP}
        context = next(iter(values.values()))
        options["dry_run"] |= isinstance(context, Context) and bool(context.config.run.dry)
        return options

    def _convert_values(self, values: dict[str, Any]) -> None:
        """Convert the values that the command line has as text, or that Python code may give as one text."""
        for name in self.iterable:
            values[name] = (values[name],) if isinstance(values[name], str) else tuple(values[name] or ())
        for name, parameter in inspect.signature(self.body).parameters.items():
            if type(parameter.default) is int:
                values[name] = _parse_count(values[name], f"--{name.replace('_', '-')}")

    def _list_commands(self, lines: Sequence[Line]) -> dict[str, str]:
        """Return the name of each Lyra task in the program's collection, by the name that messages use."""
        names = dict(zip(_COMMANDS, _COMMANDS, strict=True))
        for name in list_short_names(lines[0].collection) if lines else ():
            task = lines[0].collection[name]
            if isinstance(task, LyraTask) and task.config == self.config:
                names[task.command] = name
        return names


_COMMANDS: list[str] = []


class _Declare(Protocol):
    def __call__(self, body: Callable[P, R]) -> LyraTask[P, R]: ...


def task(
    command: str,
    *,
    iterable: tuple[str, ...] = (),
    positional: tuple[str, ...] = (),
    python_only: tuple[str, ...] = (),
    **help_texts: str,
) -> _Declare:
    """Declare the task of a command; keyword arguments are the help texts of its options.

    An option in `positional` may be given by its value alone, or omitted if it has a default.
    """

    def declare(body: Callable[P, R]) -> LyraTask[P, R]:
        options = inspect.signature(body).parameters
        names = {key: key.strip("_").replace("_", "-") for key in options}  # `from_`, since `from` is a keyword
        texts = {names[key]: text for key, text in {**_SHARED_HELP, **help_texts}.items() if key in options}
        lyra_task: LyraTask[P, R] = LyraTask(
            body,
            name=command.rpartition(".")[2],
            help=texts,
            iterable=list(iterable),
            positional=list(positional),
            auto_shortflags=False,
        )
        lyra_task.command, lyra_task.python_only = command, python_only
        _COMMANDS.append(command)
        return lyra_task

    return declare


def _only_shows(command: str) -> bool:
    from lyra_tasks.overview.history import VIEWING_TASKS

    return command in VIEWING_TASKS


def _parse_count(value: int | str, option: str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:5]) <= _MAX_COUNT:
        raise UsageError(f"{option} takes a number from 1 to {_MAX_COUNT}, not {value!r}", hint=f"Write {option} 5")
    return int(text)


def _report_error(call: TaskCall, error: LyraError, *, is_on_line: bool) -> Exit:
    with suppress(OSError):  # a full disk does not take the journal entry either
        record_task_result(call, error.exit_code, error.message)
    if not is_on_line:
        return TaskError(error.message, hint=error.hint, details=error.details, code=error.exit_code)
    if not isinstance(error, CommandExitError):
        console.error(error.message, error.hint, error.details)
    return Exit(code=error.exit_code)


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP clean up as Ctrl-C does, until the block ends; only the main thread can set handlers.

    A signal that is ignored stays so, such as SIGHUP by `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    changed = [number for number, handler in handlers.items() if handler is not signal.SIG_IGN]
    for number in changed:
        signal.signal(number, _raise_interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, handlers[number] or signal.SIG_DFL)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
