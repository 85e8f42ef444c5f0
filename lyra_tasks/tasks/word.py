"""Every word of the command line: options that hold for the whole line, one place where faults are shown."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from invoke.exceptions import Exit
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from lyra_tasks import console
from lyra_tasks.errors import InterruptedRunError, LyraError

_HELP = {
    "dry_run": "show what would be done, and do nothing (holds for the whole line)",
    "json": "one JSON document on stdout, all else on stderr (holds for the whole line)",
    "yes": "do not ask (holds for the whole line)",
}


class Word(Task):  # type: ignore[type-arg]
    """An Invoke task that shows a LyraError once, as message and hint, and ends with its exit code."""

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Only the two selections have a letter of their own; Invoke would hand out the first that is free."""
        options: dict[str, Any] = super().arg_opts(name, default, taken_names)
        if name in {"image", "service"}:
            options["names"] = [name, name[0]]
        return options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from lyra_tasks.tasks import session

        console.json_mode("--json" in line_flags())
        signal.signal(signal.SIGTERM, _terminated)
        began = session.begin(self.name)
        try:
            result = super().__call__(*args, **kwargs)
        except LyraError as error:
            session.end(began, error.exit_code, error.message)
            console.error(error.message, error.hint, error.details)
            raise Exit(code=error.exit_code) from error
        except KeyboardInterrupt as error:
            session.end(began, InterruptedRunError.exit_code, "interrupted")
            console.error("interrupted", "what this run made has been removed; run the same words again")
            raise Exit(code=InterruptedRunError.exit_code) from error
        session.end(began, 0, "")
        return result


def word(
    name: str = "", *, iterable: tuple[str, ...] = (), positional: tuple[str, ...] = (), **help: str
) -> Callable[[Callable[..., None]], Any]:
    """Declare a word; keyword arguments are the help texts of its options."""

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


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
