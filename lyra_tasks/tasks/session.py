"""The workspace that all words of one command line share, and what the journal keeps of each word."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_open = False


@dataclass(frozen=True)
class Begun:
    """A word that is running."""

    name: str
    at: float


@cache
def workspace() -> Workspace:
    """The workspace of this process, opened on first use; its run is written into the journal then."""
    global _open
    from lyra_tasks.config.load import load
    from lyra_tasks.engine.workspace import open_workspace
    from lyra_tasks.records.journal import who

    work = open_workspace(load())
    _tell_open_points(work)
    work.journal.append(work.run, "run", user=who(), command=_command_line())
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
    paths = workspace().paths
    there = [place for place in (paths.root, paths.work, paths.state, paths.cache) if place.is_dir()]
    return str(min(there, key=lambda place: shutil.disk_usage(place).free))


def begin(name: str) -> Begun:
    """Note the start of a word."""
    return Begun(name, time.monotonic())


def end(begun: Begun, exit_code: int, message: str) -> None:
    """Journal a word's result, if it came as far as to have a workspace."""
    if _open:
        work: Any = workspace()
        seconds = round(time.monotonic() - begun.at, 3)
        work.journal.append(work.run, "word", word=begun.name, exit_code=exit_code, message=message, seconds=seconds)


def _command_line() -> list[str]:
    """The words as they were typed; none of Lyra's options takes a secret."""
    return sys.argv[1:]
