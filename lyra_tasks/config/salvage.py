"""What is wrong is taken out of the document, so that the rest is checked too and one mistake is told once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lyra_tasks.config.phrases import value_at
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem


def take_out(document: dict[str, Any], problems: Iterable[Problem]) -> None:
    """Remove everything that is wrong, or the table that lacks something; a stand-in replaces what is required."""
    # All places first: what is removed for one problem must not look missing to the next
    for location in [_removable(document, problem.location) for problem in problems]:
        *parents, key = location
        table = value_at(parents, document)
        if location[0] == "tests" and len(location) > 1:
            _from_test(document["tests"], location)
        elif isinstance(table, dict):
            table.pop(key, None)
    document.setdefault("schema", 1)
    document.setdefault("project", {}).setdefault("name", "unknown")


def follows(problem: Problem, earlier: Iterable[Problem]) -> bool:
    """Whether a problem may only be there because of an earlier one: in the same place, or in what it was judged by."""
    places = [problem.location, problem.about] if problem.about else [problem.location]
    return any(_nested(place, other.location) for other in earlier for place in places)


def _from_test(tests: list[Any], location: Location) -> None:
    """Tests keep their place in the list, since they are known by it."""
    number = int(location[1])
    if not isinstance(tests[number], dict):
        tests[number] = {}
    if len(location) > 2:
        tests[number].pop(location[2], None)
    tests[number].setdefault("name", f"test {number}")


def _removable(document: dict[str, Any], location: Location) -> Location:
    """The place whose removal makes the rest valid: tests stay in their list, other lists go as a whole."""
    if location[0] == "tests":
        return location[:3]
    end = next((index for index, part in enumerate(location) if isinstance(part, int)), len(location))
    there = location[end - 1] in (value_at(location[: end - 1], document) or {})
    return location[:end] if there or end == 1 else location[: end - 1]


def _nested(one: Location, other: Location) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
