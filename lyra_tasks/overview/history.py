"""History from the journal: all runs, or all entries of a run or about an object."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from lyra_tasks import console
from lyra_tasks.digests import hex_part
from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.results.overview import RunSummary, TaskResult

VIEWING_TASKS = frozenset(
    {
        *("status", "explain", "doctor", "history", "logs", "stats", "verify", "diff", "bundle.list", "engine.status"),
        *(
            "release.version",
            "release.list",
            "config.show",
            "config.schema",
            "lock.show",
            "rules.list",
            "rules.explain",
        ),
    }
)
"""Tasks that only show something: they create nothing, and end quietly when they are interrupted."""
_MAX_RUNS = 20
_MIN_ID_LENGTH = 6
_IDENTITY_KEYS = {"kind", "name", "id"}


def summarize_runs(entries: Iterable[JournalEntry]) -> tuple[RunSummary, ...]:
    """Return all runs of the journal, newest first."""
    return tuple(summarize_run(run_entries) for run_entries in reversed(group_by_run(entries).values()))


def select_runs(runs: Iterable[RunSummary], *, show_all: bool) -> tuple[RunSummary, ...]:
    """Return all runs, or only the last ones of those that did more than show something."""
    if show_all:
        return tuple(runs)
    return tuple(islice((run for run in runs if not _only_shows(run)), _MAX_RUNS))


def _only_shows(run: RunSummary) -> bool:
    is_dry = "--dry-run" in run.command
    only_shows = is_dry or VIEWING_TASKS.issuperset(task.task for task in run.tasks)
    return bool(run.tasks) and not run.created + run.removed and only_shows


def group_by_run(entries: Iterable[JournalEntry]) -> dict[str, list[JournalEntry]]:
    """Return the entries of each run, oldest run first."""
    entries_by_run: dict[str, list[JournalEntry]] = {}
    for entry in entries:
        entries_by_run.setdefault(entry.run, []).append(entry)
    return entries_by_run


def summarize_run(entries: Sequence[JournalEntry]) -> RunSummary:
    """Return the summary of the run of these entries; PreconditionError if the data of one is damaged."""
    with translate_failures(partial(_damaged_entry_error, entries[0].run)):
        return _summarize(entries)


def _damaged_entry_error(run: str, problem: str) -> PreconditionError:
    return PreconditionError(f"The journal entries of run {run} are damaged: {problem}", hint="Run `history --check`")


def _summarize(entries: Sequence[JournalEntry]) -> RunSummary:
    data: Mapping[str, Any] = next((entry.data for entry in entries if entry.event == "run"), {})
    tasks = tuple(_parse_task_result(entry) for entry in entries if entry.event == "task")
    return RunSummary(
        id=entries[0].run,
        started_at=entries[0].at,
        user=str(data.get("user", "")),
        command=tuple(str(argument) for argument in data.get("command", [])),
        tasks=tasks,
        created=sum(entry.event == "created" for entry in entries),
        removed=sum(entry.event == "removed" for entry in entries),
        exit_code=tasks[-1].exit_code if tasks else None,
    )


def entries_of_run(entries: Iterable[JournalEntry], run_prefix: str) -> tuple[JournalEntry, ...]:
    """Return the entries of the run whose id begins with `run_prefix`; raise UsageError unless there is one."""
    matches = [entry for entry in entries if entry.run.startswith(run_prefix)]
    run_ids = sorted({entry.run for entry in matches})
    if len(run_ids) == 1:
        return tuple(matches)
    if run_ids:
        raise UsageError(f"Ambiguous run {run_prefix!r}", hint=f"It matches: {', '.join(run_ids[-5:])}")
    raise UsageError(f"Unknown run {run_prefix!r}", hint="Run `history` for all runs")


def entries_about(entries: Iterable[JournalEntry], query: str) -> tuple[JournalEntry, ...]:
    """Return all entries about a container, network, volume, image reference, version or digest.

    `query` is a name, or the beginning of an id or digest. Raises UsageError if no entry mentions it.
    """
    matches = tuple(entry for entry in entries if any(_matches(query, value) for value in _iterate_strings(entry.data)))
    if not matches:
        raise UsageError(f"No journal entry mentions {query!r}", hint="Give a name or id as in `history --run RUN`")
    return matches


def _parse_task_result(entry: JournalEntry) -> TaskResult:
    return TaskResult(
        task=str(entry.data.get("task", "")),
        exit_code=int(entry.data.get("exit_code", 1)),
        message=str(entry.data.get("message", "")),
        seconds=float(entry.data.get("seconds", 0.0)),
    )


def _iterate_strings(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        yield from map(str, value)
        yield from _iterate_strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _iterate_strings(item)
    elif isinstance(value, str):
        yield value


def _matches(query: str, value: str) -> bool:
    prefix = hex_part(query)
    is_id = len(prefix) >= _MIN_ID_LENGTH and set(prefix) <= set("0123456789abcdef")
    return query == value or (is_id and hex_part(value).startswith(prefix))


def show_runs(runs: tuple[RunSummary, ...], count: int, *, has_older: bool = False) -> tuple[RunSummary, ...]:
    """Show a line for each run, newest first, and how many of the `count` runs are not shown.

    `has_older` says that archives have more.
    """
    if console.print_result(runs):
        return runs
    if not runs:
        console.print("No runs yet" if not count else "No runs yet, except of tasks that only show something")
        return runs
    users = {run.user for run in runs}
    rows = [
        (
            run.started_at[:16].replace("T", " "),
            f"{sum(task.seconds for task in run.tasks):.1f} s",
            *([run.user] if len(users) > 1 else []),
            _format_result(run),
            run.id,
            shlex.join(run.command) or "?",
        )
        for run in runs
    ]
    user = ["user"] if len(users) > 1 else []  # the same one in each line says nothing
    console.print_table(("time (UTC)", "took", *user, "result", "run", "command"), rows)
    if count > len(runs) or has_older:
        older = ", and older ones" if has_older else ""
        console.print(f"{count - len(runs)} more, also those that only show something{older}: `history --all`")
    return runs


def show_entries(entries: tuple[JournalEntry, ...]) -> tuple[JournalEntry, ...]:
    """Show a line for each entry, oldest first."""
    if not console.print_result(entries):
        rows = [(item.at[:23].replace("T", " "), item.run, item.event, _format_data(item.data)) for item in entries]
        console.print_table(("time (UTC)", "run", "event", "data"), rows)
    return entries


def _format_result(run: RunSummary) -> str:
    if not run.tasks:
        return "unfinished"
    return f"{run.tasks[-1].task}: {run.exit_code}" if run.exit_code else "done"


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
