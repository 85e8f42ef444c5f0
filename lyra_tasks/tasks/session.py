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
    from lyra_tasks.config.load import Loaded
    from lyra_tasks.engine.workspace import Workspace

_open = False


@dataclass(frozen=True)
class Begun:
    """A word that is running."""

    name: str
    at: float


def workspace(*, in_part: bool = False) -> Workspace:
    """The workspace of this process, opened on first use; its run is written into the journal then.

    `in_part` is for words that only end or show what was made: they go on with what is valid of the configuration.
    """
    loaded = _loaded()
    if loaded.fault is not None:
        if not in_part:
            raise loaded.fault
        _warn_of(loaded.fault)
    return _workspace()


def looking() -> Workspace:
    """The workspace for a word that only looks, as often as somebody likes: what is looked at is not journaled.

    It is read anew each time, unless a word before it on the line has opened one.
    """
    if _open:
        return _workspace()
    from lyra_tasks.engine.workspace import open_workspace

    loaded = _read()
    if loaded.fault is not None:
        _warn_of(loaded.fault)
    return open_workspace(loaded)


@cache
def _loaded() -> Loaded:
    return _read()


def _read() -> Loaded:
    from lyra_tasks.config.load import load_in_part
    from lyra_tasks.rules.catalogue import deviable

    return load_in_part(rules=deviable())


@cache
def _warn_of(fault: ConfigurationError) -> None:
    console.warn(f"{fault.message}; going on with what is right in it")
    for line in fault.details:
        console.note(f"  {line}")


@cache
def _workspace() -> Workspace:
    global _open
    from lyra_tasks.engine.workspace import open_workspace
    from lyra_tasks.records.journal import who

    work = open_workspace(_loaded())
    _tell_open_points(work)
    work.journal.append(work.run, "run", user=who(), command=_command_line(work))
    _open = True
    return work


def _tell_open_points(work: Workspace) -> None:
    """What `init` left open is said in every run that makes something, until it is done."""
    from lyra_tasks import console
    from lyra_tasks.config.find import shown
    from lyra_tasks.config.todo import open_points

    if not {"build", "test", "promote", "release"} & {word for word in sys.argv[1:] if not word.startswith("-")}:
        return
    for point in open_points(work.loaded.file.read_text(encoding="utf-8")):
        console.warn(f"{shown(work.loaded.file)}:{point.line}: TODO: {point.text}")


def fullest_place() -> str:
    """The folder, of those that a run writes to, whose disk has least room."""
    if not _open:
        return "the project"
    paths = _workspace().paths
    there = [place for place in (paths.root, paths.work, paths.state, paths.cache) if place.is_dir()]
    return str(min(there, key=lambda place: shutil.disk_usage(place).free))


def begin(name: str) -> Begun:
    """Note the start of a word."""
    return Begun(name, time.monotonic())


def end(begun: Begun, exit_code: int, message: str) -> None:
    """Journal a word's result, if it came as far as to have a workspace."""
    if _open:
        work = _workspace()
        seconds = round(time.monotonic() - begun.at, 3)
        work.journal.append(work.run, "word", word=begun.name, exit_code=exit_code, message=message, seconds=seconds)


def _command_line(work: Workspace) -> list[str]:
    """The words as they were typed; none of Lyra's options takes a secret, a command of `dev.exec` might."""
    from lyra_tasks.rules.declared import blotted_out, without

    masked = blotted_out(work.config, work.root)
    return [without(word, masked) for word in sys.argv[1:]]
