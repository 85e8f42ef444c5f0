"""What happened, out of the journal: run by run, or everything about one run or one object."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.discovery import display_path
from lyra_tasks.errors import CheckFailedError, UsageError
from lyra_tasks.records.journal import Journal, JournalEntry

_MIN_ID_LENGTH = 6


@dataclass(frozen=True)
class TaskResult:
    """One word of a run: its exit code and, where it failed, what was said."""

    task: str
    exit_code: int
    message: str
    seconds: float


@dataclass(frozen=True)
class RunSummary:
    """One command line: who typed what when, how each word ended, how many objects it made and removed."""

    id: str
    started_at: str
    user: str
    command: tuple[str, ...]
    tasks: tuple[TaskResult, ...]
    created: int
    removed: int

    @property
    def exit_code(self) -> int | None:
        """That of the word it ended with; None for a run of which no word has ended."""
        return self.tasks[-1].exit_code if self.tasks else None


def summarize_runs(entries: Iterable[JournalEntry]) -> tuple[RunSummary, ...]:
    """Every run of the journal, oldest first."""
    entries_by_run: dict[str, list[JournalEntry]] = {}
    for entry in entries:
        entries_by_run.setdefault(entry.run, []).append(entry)
    return tuple(_summarize_run(run, lines) for run, lines in entries_by_run.items())


def entries_of_run(entries: Iterable[JournalEntry], run_prefix: str) -> tuple[JournalEntry, ...]:
    """What one run wrote; a beginning of its id is enough. UsageError if no run, or more than one, is called so."""
    matches = [entry for entry in entries if entry.run.startswith(run_prefix)]
    run_ids = sorted({entry.run for entry in matches})
    if len(run_ids) == 1:
        return tuple(matches)
    if run_ids:
        raise UsageError(f"several runs begin with {run_prefix!r}", hint=f"they are: {', '.join(run_ids[-5:])}")
    raise UsageError(f"the journal knows no run {run_prefix!r}", hint="`history` lists all of them")


def entries_about(entries: Iterable[JournalEntry], query: str) -> tuple[JournalEntry, ...]:
    """Everything about one object: a container, network, volume, image reference, version or digest.

    A beginning of an id or digest is enough. UsageError if the journal has nothing about it.
    """
    matches = tuple(entry for entry in entries if any(_matches(query, value) for value in _iterate_strings(entry.data)))
    if not matches:
        raise UsageError(
            f"the journal has nothing about {query!r}", hint="name or id, as `history --run RUN` shows them"
        )
    return matches


def _summarize_run(run_id: str, entries: Sequence[JournalEntry]) -> RunSummary:
    start_entry = next((entry for entry in entries if entry.event == "run"), None)
    data: dict[str, Any] = start_entry.data if start_entry else {}
    task_results = tuple(
        TaskResult(
            task=str(entry.data.get("word", "")),
            exit_code=int(entry.data.get("exit_code", 1)),
            message=str(entry.data.get("message", "")),
            seconds=float(entry.data.get("seconds", 0.0)),
        )
        for entry in entries
        if entry.event == "word"
    )
    return RunSummary(
        id=run_id,
        started_at=entries[0].at,
        user=str(data.get("user", "")),
        command=tuple(str(argument) for argument in data.get("command", [])),
        tasks=task_results,
        created=sum(entry.event == "made" for entry in entries),
        removed=sum(entry.event == "removed" for entry in entries),
    )


def _iterate_strings(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _iterate_strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _iterate_strings(item)
    elif isinstance(value, str):
        yield value


def _matches(query: str, value: str) -> bool:
    if query == value:
        return True
    bare_id = query.removeprefix("sha256:")
    is_id_prefix = len(bare_id) >= _MIN_ID_LENGTH and all(character in "0123456789abcdef" for character in bare_id)
    return is_id_prefix and value.removeprefix("sha256:").startswith(bare_id)


_IDENTITY_KEYS = {"kind", "name", "id"}


def print_runs(runs: Sequence[RunSummary]) -> None:
    """A line per run, oldest first."""
    if console.is_json_mode():
        return console.print_json([asdict(run) | {"exit_code": run.exit_code} for run in runs])
    if not runs:
        return console.print("nothing has happened yet")
    rows = [
        (run.id, run.user, _format_result(run), f"{run.created}/{run.removed}", shlex.join(run.command) or "?")
        for run in runs
    ]
    return console.print_table(("run", "user", "result", "made/removed", "words"), rows)


def print_entries(entries: Sequence[JournalEntry]) -> None:
    """A line per entry, in the order in which they were written."""
    if console.is_json_mode():
        return console.print_json([asdict(entry) for entry in entries])
    rows = [(entry.at[:23].replace("T", " "), entry.run, entry.event, _format_data(entry.data)) for entry in entries]
    return console.print_table(("when (UTC)", "run", "event", "what"), rows)


def print_journal_check(journal: Journal) -> None:
    """That every line is as it was written; VerdictError naming those that are not."""
    problems = journal.find_problems()
    count = sum(1 for _ in journal.entries())
    if console.is_json_mode():
        console.print_json({"journal": str(journal.path), "entries": count, "problems": problems})
    if problems:
        raise CheckFailedError(
            f"the journal is not as it was written: {len(problems)} fault(s)",
            hint=f"compare {display_path(journal.path)} with a copy, or with the journal in a bundle",
            details=tuple(problems),
        )
    if not console.is_json_mode():
        console.print(f"{count} entries, each as it was written and in its place")


def _format_result(run: RunSummary) -> str:
    if run.exit_code is None:
        return "no end"
    if run.exit_code == 0:
        return "done"
    return f"{run.tasks[-1].task}: {run.exit_code}"


def _format_data(data: Mapping[str, Any]) -> str:
    identity = " ".join(str(data[key]) for key in ("kind", "name") if key in data)
    if "id" in data and data["id"] != data.get("name"):
        identity += f" {str(data['id'])[:19]}"
    rest = [
        f"{key}={_format_value(value)}"
        for key, value in data.items()
        if key not in _IDENTITY_KEYS and value not in ("", [], {})
    ]
    return " ".join([*([identity.strip()] if identity else []), *rest])


def _format_value(value: object) -> str:
    if isinstance(value, list):
        return shlex.join(str(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    return str(value)
