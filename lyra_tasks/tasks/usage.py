"""Explain mistakes on the command line in Lyra's own words: misspelt tasks and options, and missing arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from invoke.exceptions import ParseError

from lyra_tasks import console
from lyra_tasks.errors import UsageError
from lyra_tasks.suggest import closest_match

_UNKNOWN = re.compile(r"No idea what '(.*)' is!", re.DOTALL)


def explain_parse_error(
    error: ParseError, program: str, tasks: Sequence[str], core_options: Sequence[str]
) -> UsageError:
    """Return the error for what Invoke's parser refuses.

    Args:
        error: What the parser has raised; it knows the task that was being parsed, if any.
        program: The name of the program, for commands that can be pasted.
        tasks: The names of all tasks.
        core_options: The options of the program itself, such as `--list`.
    """
    context: Any = error.context
    task = str(context.name) if context is not None and context.name else ""
    unknown = _UNKNOWN.fullmatch(str(error))
    if unknown is not None and unknown[1].startswith("-"):
        return _unknown_option(unknown[1], program, task, tuple(context.flags) if task else core_options)
    if unknown is not None:
        return _unknown_task(unknown[1], program, task, tasks)
    missing = [_placeholder(argument) for argument in context.missing_positional_args] if task else []
    if missing:
        usage = f"{program} {task} {' '.join(map(_placeholder, context.positional_args))}"
        hint = f"Write `{usage}`; `{program} --help {task}` says more"
        return UsageError(f"`{task}` needs {' and '.join(missing)}", hint=hint)
    arguments = context.args.values() if context else ()
    flag = next((argument for argument in arguments if repr(argument) in str(error)), None)
    if flag is not None:
        needs = "takes no value" if "doesn't take" in str(error) else "needs a value"
        return UsageError(f"Option --{flag.name.replace('_', '-')} {needs}", hint=_show_help(program, task))
    return UsageError(str(error), hint=_show_help(program, task))


def _placeholder(argument: Any) -> str:
    return str(argument.name).upper().replace("_", "-")


def _unknown_option(option: str, program: str, task: str, options: Sequence[str]) -> UsageError:
    match = closest_match(option, options)
    owner = f" of `{task}`" if task else ""
    hint = f"Did you mean {match}? " if match else ""
    return UsageError(f"Unknown option '{console.escape(option)}'{owner}", hint=hint + _show_help(program, task))


def _unknown_task(name: str, program: str, previous: str, tasks: Sequence[str]) -> UsageError:
    """Return the error for a name that is no task; it may be that of a group, or a value that belongs to no option."""
    group = name.partition(".")[0]
    members = [task for task in tasks if task.startswith(f"{group}.")]
    if members and name == group:
        return UsageError(f"`{name}` is a group of tasks", hint=f"Run one of them: {_join_commands(program, members)}")
    message = f"Unknown task '{console.escape(name)}'"
    match = closest_match(name, members or tasks)
    if match:
        return UsageError(message, hint=f"Did you mean `{program} {match}`?")
    if members:
        return UsageError(message, hint=f"The tasks of {group} are {_join_commands(program, members)}")
    after = f"; `{program} --help {previous}` shows what `{previous}` takes" if previous else ""
    return UsageError(message, hint=f"Run `{program} --list` for all tasks{after}")


def _join_commands(program: str, tasks: Sequence[str]) -> str:
    return ", ".join(f"`{program} {task}`" for task in tasks)


def _show_help(program: str, task: str) -> str:
    return f"Run `{program} --help {task}` for its options" if task else f"Run `{program} --help` for all options"
