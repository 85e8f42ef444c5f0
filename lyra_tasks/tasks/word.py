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
from lyra_tasks.errors import InterruptedRunError, LyraError, UsageError, system_fault

if TYPE_CHECKING:
    from lyra_tasks.tasks.session import Begun

_HELP = {
    "dry_run": "show what would be done, and do nothing (holds for the whole line)",
    "json": "one JSON document per word on stdout, all else on stderr (holds for the whole line)",
    "yes": "do not ask (holds for the whole line)",
}
_STEPS = {"build", "test", "release", "promote", "verify", "clean"}
_QUIET = "say nothing but warnings and faults; the exit code tells the rest (holds for the whole line)"


_HELP_FLAGS = frozenset({"--help", "-h"})


class Word(Task):  # type: ignore[type-arg]
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
            if argument.positional and _HELP_FLAGS & line_flags():
                argument.positional = False
            if argument.positional and argument.default is not None:
                argument.positional = _path_follows(self.name)
                argument.default = None if argument.positional else argument.default
        return [*arguments, Argument(name="quiet", kind=bool, default=False, help=_QUIET)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from lyra_tasks.tasks import session

        console.json_mode("--json" in line_flags())
        console.quiet_mode("--quiet" in line_flags())
        kwargs.pop("quiet", None)
        signal.signal(signal.SIGTERM, _terminated)
        began = session.begin(self.name)
        try:
            result = super().__call__(*args, **kwargs)
        except LyraError as error:
            raise _shown(began, error) from error
        except OSError as error:
            fault = system_fault(error, session.fullest_place())
            if fault is None:
                raise
            raise _shown(began, fault) from error
        except KeyboardInterrupt as error:
            session.end(began, InterruptedRunError.exit_code, "interrupted")
            console.error("interrupted", "what this run made has been removed; run the same words again")
            raise Exit(code=InterruptedRunError.exit_code) from error
        session.end(began, 0, "")
        return result


def _shown(began: Begun, fault: LyraError) -> Exit:
    """Show a fault, and end with its exit code; a full disk that cannot take the journal's line either is told once."""
    from lyra_tasks.tasks import session

    console.error(fault.message, fault.hint, fault.details)
    with suppress(OSError):
        session.end(began, fault.exit_code, fault.message)
    return Exit(code=fault.exit_code)


def word(
    name: str = "", *, iterable: tuple[str, ...] = (), positional: tuple[str, ...] = (), **help: str
) -> Callable[[Callable[..., None]], Any]:
    """Declare a word; keyword arguments are the help texts of its options.

    An option in `positional` may be given by its value alone, or left out where it has a default.
    """

    def declare(body: Callable[..., None]) -> Any:
        options = body.__code__.co_varnames[: body.__code__.co_argcount]
        texts = {key.replace("_", "-"): text for key, text in {**_HELP, **help}.items() if key in options}
        return invoke_task(
            body,
            name=name or None,
            klass=Word,
            help=texts,
            iterable=list(iterable),
            positional=list(positional),
            auto_shortflags=False,
        )

    return declare


def line_flags() -> frozenset[str]:
    """The options of the whole command line, read before the first word runs.

    `build --dry-run test` must not test: an option that says "do nothing" may not hold for one word only.
    """
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    return frozenset(each for each in words[:end] if each.startswith("-"))


def dry(context: Any) -> bool:
    """Whether nothing may be changed: `--dry-run` anywhere on the line, or Invoke's own `--dry`."""
    return "--dry-run" in line_flags() or bool(context.config.run.dry)


def remainder() -> list[str]:
    """What stands after `--`, word by word as the shell gave it; Invoke would join it and lose the quotes."""
    words = sys.argv[1:]
    return words[words.index("--") + 1 :] if "--" in words else []


def next_words(ran: str, following: str, purpose: str) -> tuple[str, str]:
    """What to type after the word that `ran`, and why; nothing where the line goes on by itself, or only looked."""
    goes_on = [each for each in sys.argv[1:] if each in _STEPS][-1:] != [ran]
    return ("", "") if goes_on or "--only" in line_flags() else (following, purpose)


def number(text: str, option: str) -> int:
    """The value of an option that counts; Invoke's own conversion ends in a traceback."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UsageError(f"{option} takes a number from 1 to 1000, not {text!r}", hint=f"for example {option} 5")
    return int(text)


def _path_follows(name: str) -> bool:
    words = sys.argv[1:]
    after = [following for word, following in pairwise(words) if word.split(".")[-1] == name]
    return any(os.sep in each or each in {os.curdir, os.pardir} for each in after if not each.startswith("-"))


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
