"""What is wrong is taken out of the document, so that the rest is checked too and one mistake is told once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lyra_tasks.config.phrases import value_at
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem


def take_out(document: dict[str, Any], location: Location) -> None:
    """Remove what is wrong at `location`, or the table that lacks it; what is required is replaced by a stand-in."""
    table = location[0]
    if table == "schema":
        document["schema"] = 1
    elif table == "project":
        document["project"] = {"name": "unknown"}
    elif table == "tests" and len(location) > 1:
        _from_test(document["tests"], location)
    elif table == "deviations":
        document.pop("deviations", None)
    else:
        _from_table(document, location)


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


def _from_table(document: dict[str, Any], location: Location) -> None:
    in_list = next((index for index, part in enumerate(location) if isinstance(part, int)), len(location))
    *parents, key = location[:in_list]
    if key not in value_at(parents, document):
        *parents, key = parents
    del value_at(parents, document)[key]


def _nested(one: Location, other: Location) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
