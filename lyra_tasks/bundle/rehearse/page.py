"""The commands of `PROMOTION.md`: read from the page of a bundle or pack, so that they run as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle.format.layout import SUMMARY_FILE
from lyra_tasks.bundle.format.manifest import read_small_file
from lyra_tasks.errors import BundleError

TRUST, LOAD, CONFIGURE, START, CHECK, UPGRADE, ROLL_BACK, MAKE_ROOM, IDENTIFY = "123456789"
PACK = "This is a pack"
"""The steps, by their numbers, and what a pack has before them."""

_HEADING = re.compile(r"(?m)^## (?=\S)")
_NUMBER = re.compile(r"([1-9])\. ")
_BLOCK = re.compile(r"(?ms)^```\n(.*?)^```$")
_PLACEHOLDERS = re.compile(r"(?:[A-Z]+=\S+ *)+(?:#.*)?")
_FUNCTION = re.compile(r"\w+\(\) \{ ")
_SHELL_STATE = re.compile(r"[A-Z]+=|\w+\(\) \{ ")
_SETTING = re.compile(r"(ask|put|echo) '?(\w+)\b")


@dataclass(frozen=True)
class Step:
    """A step of a page: the commands of each block, in `deploy/` or else where the bundle is."""

    title: str
    blocks: tuple[tuple[str, ...], ...]
    is_in_deploy: bool

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the commands of all blocks."""
        return tuple(line for block in self.blocks for line in block)


@dataclass(frozen=True)
class Setting:
    """Commands of `Configure` that set a variable of `.env`, or that precede others (no variable)."""

    variable: str
    lines: tuple[str, ...]


class Page:
    """The steps of the page in a directory."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / SUMMARY_FILE
        text = read_small_file(self._file).decode(errors="replace")
        self._steps = dict(map(_parse_step, _HEADING.split(text)[1:]))

    def find(self, name: str) -> Step:
        """Return a step; raise BundleError for a page that does not have it."""
        step = self._steps.get(name)
        if step is None or not step.blocks:
            raise BundleError(
                f"{self._file}: step {name} has no commands", hint="Rehearse with bundles of this version of Lyra"
            )
        return step

    def settings(self) -> Iterator[Setting]:
        """Yield the commands of `Configure` that belong together, without those that begin a new `.env`."""
        first, *blocks = self.find(CONFIGURE).blocks
        yield Setting("", tuple(filter(_FUNCTION.match, first)))
        lines: list[str] = []
        for line in (line for block in blocks for line in block):
            lines.append(line)
            setting = _SETTING.match(line)
            if setting or not line.startswith(("FILE=", "install ")):
                yield Setting(setting[2] if setting else "", tuple(lines))
                lines.clear()


def fill_in(lines: Iterable[str], values: Mapping[str, str]) -> Iterator[str]:
    """Replace what a page leaves open: `NAME=/path/to/…` on a line of assignments, if there is a value."""
    for line in lines:
        if _PLACEHOLDERS.fullmatch(line):
            yield re.sub(r"\b([A-Z]+)=\S+", lambda match: _assign(match, values), line)
        else:
            yield line


def list_shell_state(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that set variables and functions, which later steps in the same shell may use."""
    return (line for line in lines if _SHELL_STATE.match(line))


def list_questions(lines: Iterable[str]) -> list[str]:
    """Return the variables whose values are typed, in order."""
    return [match[2] for match in map(_SETTING.match, lines) if match and match[1] == "ask"]


def _assign(match: re.Match[str], values: Mapping[str, str]) -> str:
    return f"{match[1]}={shlex.quote(values[match[1]])}" if match[1] in values else match[0]


def _parse_step(section: str) -> tuple[str, Step]:
    title = section.partition("\n")[0]
    number = _NUMBER.match(title)
    blocks = tuple(tuple(_list_commands(block)) for block in _BLOCK.findall(section))
    return number[1] if number else title, Step(title, blocks, "In `deploy/`" in section)


def _list_commands(block: str) -> Iterator[str]:
    return (line for line in block.splitlines() if line.strip() and not line.startswith("#"))
