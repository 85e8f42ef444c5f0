"""The command line that a task belongs to, as Invoke parsed it.

Invoke gives a task its own arguments, but not what else is on the line. That is in the Program and the Executor which
run the task, found on the call stack. A task without them was called by Python code alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from invoke.collection import Collection
from invoke.executor import Executor
from invoke.parser.context import ParserContext
from invoke.program import Program

_VERSION = re.compile(r"v?\d+\.\d+\.\d+")
_LYRA = "lyra"
_LYRA_PROGRAMS = ("./inv", _LYRA)


@dataclass(frozen=True)
class LineTask:
    """A task on the command line, by the name it was called by, with the values of its options."""

    name: str
    task: Any
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A command line while it runs; `arguments` are without the program, `collection` is that of the program.

    `running` is the task that Invoke runs, `following` the one after it, or None.
    """

    program: str
    arguments: tuple[str, ...]
    tasks: tuple[LineTask, ...]
    collection: Collection
    running: Any = None
    following: Any = None

    @property
    def arguments_after_dashes(self) -> tuple[str, ...]:
        """Return the arguments after `--` as they were typed; Invoke joins them and loses the quotes."""
        return self.arguments[self.arguments.index("--") + 1 :] if "--" in self.arguments else ()


def find_lines() -> tuple[Line, ...]:
    """Return the command lines that run around the caller, the innermost first.

    In a thread that Invoke does not run in, these are the lines of the process.
    """
    own_lines = tuple(_lines_on_stack(sys._getframe(1)))
    if own_lines:
        return own_lines
    return tuple(line for frame in sys._current_frames().values() for line in _lines_on_stack(frame))


def is_run_by_invoke(frame: FrameType) -> bool:
    """Return whether this frame is the one in which Invoke calls the tasks of a line."""
    return frame.f_code.co_name == "execute" and isinstance(frame.f_locals.get("self"), Executor)


def find_parsed_arguments() -> tuple[str, ...]:
    """Return the arguments, without the program, that Invoke is parsing around the caller; none if it is not."""
    program = _find_program(sys._getframe(1))
    return () if program is None else tuple(program.argv[1:])


def is_followed_by_value(task: Any, argument: str) -> bool:
    """Return whether a value of its optional `argument` follows the name of `task` on the line that Invoke is parsing.

    A name may be anything but a task and an option; other values are paths and versions.
    """
    program = _find_program(sys._getframe(1))
    if program is None:
        return False
    names = set(find_names(program.collection, task))
    followers = [after for before, after in pairwise(program.argv[1:]) if before in names]
    values = [value for value in followers if value not in program.collection.task_names]
    return any(_is_path_or_version(value) or (argument == "name" and value[:1] != "-") for value in values)


def _is_path_or_version(text: str) -> bool:
    if text.startswith("-"):
        return False
    return os.sep in text or text in {os.curdir, os.pardir} or bool(_VERSION.match(text)) or Path(text).exists()


def list_short_names(collection: Collection) -> Iterator[str]:
    """Yield one name for each task of `collection`: a default task has that of its collection."""
    for name, aliases in collection.task_names.items():
        yield min((name, *aliases), key=len)


def find_names(collection: Collection, task: Any) -> Iterator[str]:
    """Yield all names that `collection` has for exactly this task."""
    for name, aliases in collection.task_names.items():
        if collection[name] is task:
            yield from (name, *aliases)


def name_program(lines: Sequence[Line]) -> str:
    """Return the name of the program for messages; without one it is `lyra`, which runs the same tasks."""
    return lines[0].program if lines else _LYRA


def called_name(program: Program | None) -> str:
    """Return the name that a program was called by, which is `invoke` for Invoke's own."""
    if program is None:
        return _LYRA
    path = Path(program.argv[0])
    if path.stem in {"invoke", "inv"} or path.parent.name == "invoke":  # the latter is `python -m invoke`
        return "invoke"
    if program.binary in _LYRA_PROGRAMS:
        return "./inv" if "LYRA_INV_HOME" in os.environ else "lyra"
    return program.binary


def _lines_on_stack(frame: FrameType | None) -> Iterator[Line]:
    while frame is not None:
        if is_run_by_invoke(frame):
            yield _read_line(frame)
        frame = frame.f_back


def _read_line(frame: FrameType) -> Line:
    collection, program = frame.f_locals["self"].collection, _find_program(frame)
    entries = []
    for item in frame.f_locals.get("tasks", ()):
        name, options = (item, {}) if isinstance(item, str) else _read_entry(item)
        entries.append(LineTask(name, collection[name], options))
    typed = tuple(program.argv[1:]) if program else tuple(entry.name for entry in entries)
    return Line(called_name(program), typed, tuple(entries), collection, *_find_running_tasks(frame))


def _find_running_tasks(frame: FrameType) -> tuple[Any, Any]:
    """Return the task that Invoke runs in this frame, and the one after it; a line may have the same task twice."""
    calls, running = frame.f_locals.get("calls", ()), frame.f_locals.get("call")
    position = next((number for number, call in enumerate(calls) if call is running), None)
    if position is None:
        return None, None
    following = calls[position + 1 : position + 2]
    return calls[position].task, following[0].task if following else None


def _read_entry(item: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, ParserContext):
        return str(item.name), item.as_kwargs
    name, options = item
    return name, options


def _find_program(frame: FrameType | None) -> Program | None:
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_name in {"run", "parse_tasks", "execute"} else None
        if isinstance(owner, Program):
            return owner
        frame = frame.f_back
    return None
