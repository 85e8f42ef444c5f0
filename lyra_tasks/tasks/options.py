"""Read the command line: options that apply to every task on it, arguments after `--`, counts."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.errors import UsageError

_WORKFLOW_TASKS = {"build", "test", "release", "promote", "verify", "clean"}


def program_name() -> str:
    """Return the name that the program was called by: `./inv`, `lyra`, or `invoke` for Invoke's own program."""
    program = Path(sys.argv[0])
    if program.stem in {"invoke", "inv"} or program.parent.name == "invoke":  # the latter is `python -m invoke`
        return "invoke"
    return "./inv" if "LYRA_INV_HOME" in os.environ else "lyra"


def command_line_options() -> frozenset[str]:
    """Return all options on the command line, whichever task they follow.

    `build --dry-run test` must not test: an option such as `--dry-run` applies to every task on the line.
    """
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return frozenset(argument for argument in arguments[:end] if argument.startswith("-"))


def is_dry_run(context: Any) -> bool:
    """Return whether nothing may be changed: `--dry-run` anywhere on the line, or Invoke's own `--dry`."""
    return "--dry-run" in command_line_options() or bool(context.config.run.dry)


def is_confirmed() -> bool:
    """Return whether `--yes` answers all questions."""
    return "--yes" in command_line_options()


def arguments_after_dashes() -> list[str]:
    """Return the arguments after `--` as the shell passed them; Invoke joins them and loses the quotes."""
    arguments = sys.argv[1:]
    return arguments[arguments.index("--") + 1 :] if "--" in arguments else []


def is_followed_by_path(task_name: str) -> bool:
    """Return whether a path follows the name of a task."""
    arguments = sys.argv[1:]
    following = [after for before, after in pairwise(arguments) if before.split(".")[-1] == task_name]
    return any(
        os.sep in argument or argument in {os.curdir, os.pardir}
        for argument in following
        if not argument.startswith("-")
    )


def print_next_command(finished: str, next_task: str, purpose: str) -> None:
    """Suggest the command after a finished task, unless the line continues or `--only` was used."""
    is_last = [argument for argument in sys.argv[1:] if argument in _WORKFLOW_TASKS][-1:] == [finished]
    if is_last and "--only" not in command_line_options() and not console.is_json_mode():
        console.print(f"next: {console.style(f'`{next_task}`', 'bold')} {purpose}")


def parse_count(text: str, option: str) -> int:
    """Return the value of an option that takes a number from 1 to 1000; Invoke's own conversion ends in a traceback."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UsageError(f"{option} takes a number from 1 to 1000, not {text!r}", hint=f"For example: {option} 5")
    return int(text)
