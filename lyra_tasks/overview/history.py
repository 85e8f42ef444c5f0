"""What happened, out of the journal: run by run, or everything about one run or one object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_tasks.errors import UsageError
from lyra_tasks.records.journal import Entry

_SHORTEST_ID = 6


@dataclass(frozen=True)
class WordResult:
    """One word of a run: its exit code and, where it failed, what was said."""

    word: str
    exit_code: int
    message: str
    seconds: float


@dataclass(frozen=True)
class Run:
    """One command line: who typed what when, how each word ended, how many objects it made and removed."""

    id: str
    at: str
    user: str
    command: tuple[str, ...]
    words: tuple[WordResult, ...]
    made: int
    removed: int

    @property
    def exit_code(self) -> int | None:
        """That of the word it ended with; None for a run of which no word has ended."""
        return self.words[-1].exit_code if self.words else None


def runs(entries: Iterable[Entry]) -> tuple[Run, ...]:
    """Every run of the journal, oldest first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.run, []).append(entry)
    return tuple(_run(run, lines) for run, lines in found.items())


def of_run(entries: Iterable[Entry], run: str) -> tuple[Entry, ...]:
    """What one run wrote; a beginning of its id is enough. UsageError if no run, or more than one, is called so."""
    lines = [entry for entry in entries if entry.run.startswith(run)]
    names = sorted({entry.run for entry in lines})
    if len(names) == 1:
        return tuple(lines)
    if names:
        raise UsageError(f"several runs begin with {run!r}", hint=f"they are: {', '.join(names[-5:])}")
    raise UsageError(f"the journal knows no run {run!r}", hint="`history` lists all of them")


def about(entries: Iterable[Entry], thing: str) -> tuple[Entry, ...]:
    """Everything about one object: a container, network, volume, image reference, version or digest.

    A beginning of an id or digest is enough. UsageError if the journal has nothing about it.
    """
    found = tuple(entry for entry in entries if any(_is(thing, value) for value in _values(entry.data)))
    if not found:
        raise UsageError(
            f"the journal has nothing about {thing!r}", hint="name or id, as `history --run RUN` shows them"
        )
    return found


def _run(run: str, entries: Sequence[Entry]) -> Run:
    begun = next((entry for entry in entries if entry.event == "run"), None)
    data: dict[str, Any] = begun.data if begun else {}
    words = tuple(
        WordResult(
            word=str(entry.data.get("word", "")),
            exit_code=int(entry.data.get("exit_code", 1)),
            message=str(entry.data.get("message", "")),
            seconds=float(entry.data.get("seconds", 0.0)),
        )
        for entry in entries
        if entry.event == "word"
    )
    return Run(
        id=run,
        at=entries[0].at,
        user=str(data.get("user", "")),
        command=tuple(str(word) for word in data.get("command", [])),
        words=words,
        made=sum(entry.event == "made" for entry in entries),
        removed=sum(entry.event == "removed" for entry in entries),
    )


def _values(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)
    elif isinstance(value, str):
        yield value


def _is(thing: str, value: str) -> bool:
    if thing == value:
        return True
    bare = thing.removeprefix("sha256:")
    is_id = len(bare) >= _SHORTEST_ID and all(letter in "0123456789abcdef" for letter in bare)
    return is_id and value.removeprefix("sha256:").startswith(bare)
