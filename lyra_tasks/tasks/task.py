"""Every word of the command line: options that hold for the whole line, one place where faults are shown."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from lyra_tasks import console
from lyra_tasks.errors import InterruptedRunError, LyraError, UsageError, from_os_error

if TYPE_CHECKING:
    from lyra_tasks.tasks.session import TaskRun

_SHARED_HELP = {
    "dry_run": "show what would be done, and do nothing (holds for the whole line)",
    "json": "one JSON document per word on stdout, all else on stderr (holds for the whole line)",
    "yes": "do not ask (holds for the whole line)",
}
_PIPELINE_TASKS = {"build", "test", "release", "promote", "verify", "clean"}
_QUIET_HELP = "say nothing but warnings and faults; the exit code tells the rest (holds for the whole line)"


_HELP_OPTIONS = frozenset({"--help", "-h"})


class LyraTask(Task):  # type: ignore[type-arg]
    """An Invoke task that shows a LyraError once, as message and hint, and ends with its exit code."""

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Only three options have a letter of their own; Invoke would hand out the first that is free."""
        options: dict[str, Any] = super().arg_opts(name, default, taken_names)
        if name in {"image", "service", "follow"}:
            options["names"] = [name, name[0]]
        return options

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:
        """A repeatable option without its value is a usage error; Invoke would pass over it and take everything.

        Who asks for help gives no arguments. A positional argument that has a default is one only where a path follows
        the word: Invoke knows no optional ones, and the next word of the line is no path.
        """
        arguments: list[Any] = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
            if argument.positional and _HELP_OPTIONS & command_line_options():
                argument.positional = False
            if argument.positional and argument.default is not None:
                argument.positional = _is_followed_by_path(self.name)
                argument.default = None if argument.positional else argument.default
        return [*arguments, Argument(name="quiet", kind=bool, default=False, help=_QUIET_HELP)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from lyra_tasks.tasks.session import disk_with_least_space, finish_task_run, start_task_run

        console.set_json_mode("--json" in command_line_options())
        console.set_quiet_mode("--quiet" in command_line_options())
        kwargs.pop("quiet", None)
        signal.signal(signal.SIGTERM, _raise_interrupt)
        task_run = start_task_run(self.name)
        try:
            result = super().__call__(*args, **kwargs)
        except LyraError as error:
            raise _report_error(task_run, error) from error
        except OSError as error:
            known_error = from_os_error(error, disk_with_least_space())
            if known_error is None:
                raise
            raise _report_error(task_run, known_error) from error
        except KeyboardInterrupt as error:
            finish_task_run(task_run, InterruptedRunError.exit_code, "interrupted")
            console.error("interrupted", "what this run made has been removed; run the same words again")
            raise Exit(code=InterruptedRunError.exit_code) from error
        finish_task_run(task_run, 0, "")
        return result


def _report_error(task_run: TaskRun, error: LyraError) -> Exit:
    """Show a fault, and end with its exit code; a full disk that cannot take the journal's line either is told once."""
    from lyra_tasks.tasks.session import finish_task_run

    console.error(error.message, error.hint, error.details)
    with suppress(OSError):
        finish_task_run(task_run, error.exit_code, error.message)
    return Exit(code=error.exit_code)


def task(
    name: str = "", *, iterable: tuple[str, ...] = (), positional: tuple[str, ...] = (), **help: str
) -> Callable[[Callable[..., None]], Any]:
    """Declare a word; keyword arguments are the help texts of its options.

    An option in `positional` may be given by its value alone, or left out where it has a default.
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


def command_line_options() -> frozenset[str]:
    """The options of the whole command line, read before the first word runs.

    `build --dry-run test` must not test: an option that says "do nothing" may not hold for one word only.
    """
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return frozenset(argument for argument in arguments[:end] if argument.startswith("-"))


def is_dry_run(context: Any) -> bool:
    """Whether nothing may be changed: `--dry-run` anywhere on the line, or Invoke's own `--dry`."""
    return "--dry-run" in command_line_options() or bool(context.config.run.dry)


def arguments_after_dashes() -> list[str]:
    """What stands after `--`, word by word as the shell gave it; Invoke would join it and lose the quotes."""
    arguments = sys.argv[1:]
    return arguments[arguments.index("--") + 1 :] if "--" in arguments else []


def suggest_next_command(finished: str, next_task: str, purpose: str) -> tuple[str, str]:
    """What to type after the word that `ran`, and why; nothing where the line goes on by itself, or only looked."""
    line_continues = [argument for argument in sys.argv[1:] if argument in _PIPELINE_TASKS][-1:] != [finished]
    return ("", "") if line_continues or "--only" in command_line_options() else (next_task, purpose)


def parse_count(text: str, option: str) -> int:
    """The value of an option that counts; Invoke's own conversion ends in a traceback."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UsageError(f"{option} takes a number from 1 to 1000, not {text!r}", hint=f"for example {option} 5")
    return int(text)


def _is_followed_by_path(task_name: str) -> bool:
    arguments = sys.argv[1:]
    candidates = [
        next_argument for argument, next_argument in pairwise(arguments) if argument.split(".")[-1] == task_name
    ]
    return any(
        os.sep in candidate or candidate in {os.curdir, os.pardir}
        for candidate in candidates
        if not candidate.startswith("-")
    )


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
