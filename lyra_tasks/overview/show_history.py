"""What `history` shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.find import shown
from lyra_tasks.errors import VerdictError
from lyra_tasks.overview.history import Run
from lyra_tasks.records.journal import Entry, Journal

_OWN = {"kind", "name", "id"}


def table(runs: Sequence[Run]) -> None:
    """A line per run, oldest first."""
    if console.is_json():
        return console.document([asdict(run) | {"exit_code": run.exit_code} for run in runs])
    if not runs:
        return console.say("nothing has happened yet")
    rows = [
        (run.id, run.user, _result(run), f"{run.made}/{run.removed}", shlex.join(run.command) or "?") for run in runs
    ]
    return console.table(("run", "user", "result", "made/removed", "words"), rows)


def entries(found: Sequence[Entry]) -> None:
    """A line per entry, in the order in which they were written."""
    if console.is_json():
        return console.document([asdict(entry) for entry in found])
    rows = [(entry.at[:23].replace("T", " "), entry.run, entry.event, _told(entry.data)) for entry in found]
    return console.table(("when (UTC)", "run", "event", "what"), rows)


def checked(journal: Journal) -> None:
    """That every line is as it was written; VerdictError naming those that are not."""
    problems = journal.problems()
    count = sum(1 for _ in journal.entries())
    if console.is_json():
        console.document({"journal": str(journal.path), "entries": count, "problems": problems})
    if problems:
        raise VerdictError(
            f"the journal is not as it was written: {len(problems)} fault(s)",
            hint=f"compare {shown(journal.path)} with a copy, or with the journal in a bundle",
            details=tuple(problems),
        )
    if not console.is_json():
        console.say(f"{count} entries, each as it was written and in its place")


def _result(run: Run) -> str:
    if run.exit_code is None:
        return "no end"
    if run.exit_code == 0:
        return "done"
    return f"{run.words[-1].word}: {run.exit_code}"


def _told(data: Mapping[str, Any]) -> str:
    named = " ".join(str(data[key]) for key in ("kind", "name") if key in data)
    if "id" in data and data["id"] != data.get("name"):
        named += f" {str(data['id'])[:19]}"
    rest = [f"{key}={_value(value)}" for key, value in data.items() if key not in _OWN and value not in ("", [], {})]
    return " ".join([*([named.strip()] if named else []), *rest])


def _value(value: object) -> str:
    if isinstance(value, list):
        return shlex.join(str(each) for each in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{each}" for key, each in value.items())
    return str(value)
