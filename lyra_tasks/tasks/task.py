"""The Task class and decorator of all Lyra tasks: shared options, and the one place where errors are reported."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from lyra_tasks import console
from lyra_tasks.errors import InterruptedRunError, LyraError, from_os_error
from lyra_tasks.tasks.options import command_line_options, is_followed_by_path, program_name

_SHARED_HELP = {
    "dry_run": "Print the plan without changing anything (applies to all tasks given)",
    "json": "Print one JSON document per task to stdout; messages go to stderr",
    "yes": "Do not ask for confirmation",
}
_QUIET_HELP = "Print only warnings and errors"
_HELP_OPTIONS = frozenset({"--help", "-h"})


class LyraTask(Task):  # type: ignore[type-arg]
    """An Invoke task that reports a LyraError as message and hint, and exits with its exit code."""

    command_names: ClassVar[tuple[str, ...]] = ()

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Give only three options a short form; Invoke would take the first letter that is free."""
        options: dict[str, Any] = super().arg_opts(name, default, taken_names)
        if name in {"image", "service", "follow"}:
            options["names"] = [name, name[0]]
        return options

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:
        """Return the task's arguments, with `--quiet` and stricter rules than Invoke's.

        A repeatable option requires a value, which Invoke would silently treat as not given. A positional argument with
        a default is positional only before a path, since Invoke would take the next task of the line for its value.
        With `--help` nothing is positional.
        """
        arguments: list[Any] = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
            if argument.positional and _HELP_OPTIONS & command_line_options():
                argument.positional = False
            if argument.positional and argument.default is not None:
                argument.positional = is_followed_by_path(self.name)
                argument.default = None if argument.positional else argument.default
        return [*arguments, Argument(name="quiet", kind=bool, default=False, help=_QUIET_HELP)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, journal its result and report its errors."""
        from lyra_tasks.tasks.session import disk_with_least_space, record_task_result

        console.set_json_mode("--json" in command_line_options())
        console.set_quiet_mode("--quiet" in command_line_options())
        console.set_program(program_name(), self.command_names)
        kwargs.pop("quiet", None)
        signal.signal(signal.SIGTERM, _raise_interrupt)
        started_at = time.monotonic()
        try:
            result = super().__call__(*args, **kwargs)
        except LyraError as error:
            raise _report_error(self.name, started_at, error) from error
        except OSError as error:
            known_error = from_os_error(error, disk_with_least_space())
            if known_error is None:
                raise
            raise _report_error(self.name, started_at, known_error) from error
        except KeyboardInterrupt as error:
            record_task_result(self.name, started_at, InterruptedRunError.exit_code, "interrupted")
            console.error("Interrupted; everything this run created was removed")
            raise Exit(code=InterruptedRunError.exit_code) from error
        record_task_result(self.name, started_at, 0, "")
        return result


def task(
    name: str = "", *, iterable: tuple[str, ...] = (), positional: tuple[str, ...] = (), **help: str
) -> Callable[[Callable[..., None]], Any]:
    """Declare a task; keyword arguments are the help texts of its options.

    An option in `positional` may be given by its value alone, or omitted if it has a default.
    """

    def declare(body: Callable[..., None]) -> Any:
        options = body.__code__.co_varnames[: body.__code__.co_argcount]
        help_texts = {key.replace("_", "-"): text for key, text in {**_SHARED_HELP, **help}.items() if key in options}
        return invoke_task(
            body,
            name=name or None,
            klass=LyraTask,
            help=help_texts,
            iterable=list(iterable),
            positional=list(positional),
            auto_shortflags=False,
        )

    return declare


def _report_error(name: str, started_at: float, error: LyraError) -> Exit:
    from lyra_tasks.tasks.session import record_task_result

    console.error(error.message, error.hint, error.details)
    with suppress(OSError):  # a full disk does not take the journal entry either, and was just reported
        record_task_result(name, started_at, error.exit_code, error.message)
    return Exit(code=error.exit_code)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
