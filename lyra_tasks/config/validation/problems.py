"""Problems of a configuration, and their messages: `FILE:LINE: key: what is wrong; what is allowed`."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.validation.positions import Location, Positions
from lyra_tasks.console import format_count, sanitize
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.redaction import is_secret_name

_SECRET_HEADER = re.compile("AUTHORIZATION|COOKIE", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MAX_QUOTED_LENGTH = 60


@dataclass(frozen=True)
class Problem:
    """A mistake at a location of the document; it may also depend on the value at `related_location`."""

    location: Location
    message: str
    related_location: Location = ()


def problems_to_error(
    problems: Iterable[Problem],
    *,
    file: str,
    lines: Positions,
    overrides: Mapping[Location, str],
    places: Mapping[Location, tuple[str, int]] | None = None,
) -> ConfigurationError:
    """Return one error with all problems in the order of the files; overridden keys are named by their variable.

    `places` has file and line of the values from other files.
    """
    located = {problem: find_place(problem.location, file, lines, places or {}) for problem in problems}
    ordered = sorted(
        located, key=lambda problem: (located[problem][0] != file, *located[problem], format_location(problem.location))
    )
    details = tuple(
        f"{overrides[problem.location]}: {problem.message}"
        if problem.location in overrides
        else f"{located[problem][0]}:{located[problem][1]}: {format_location(problem.location)}: {problem.message}"
        for problem in ordered
    )
    files = dict.fromkeys(located[problem][0] for problem in ordered if problem.location not in overrides)
    return to_error(" and ".join(files) or file, details)


def find_place(
    location: Location, file: str, lines: Positions, places: Mapping[Location, tuple[str, int]]
) -> tuple[str, int]:
    """Return file and line of a value, or of the nearest enclosing table; `lines` are those of `file`."""
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            return file, lines[location[:end]]
        if location[:end] in places:
            return places[location[:end]]
    return file, 1


def to_error(file: str, details: tuple[str, ...]) -> ConfigurationError:
    """Return the error for problems that are formatted already."""
    count = format_count(len(details), "problem")
    return ConfigurationError(
        f"{count} in {file}", hint="Correct the file; `config.schema` describes every key", details=details
    )


def format_location(location: Location) -> str:
    """Format a location: `services.web.ports`, `tests[0].status`, `bases."python:3"`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else quote_text(part))
    return text


def quote_text(text: str) -> str:
    """Return a text in quotes, truncated, with terminal control characters escaped."""
    shortened = text if len(text) <= _MAX_QUOTED_LENGTH else text[: _MAX_QUOTED_LENGTH - 1] + "…"
    return sanitize(json.dumps(shortened, ensure_ascii=False))


def describe_value(location: Location, value: object) -> str:
    """Return a scalar value for a message, or only the type of a table, a list or a possible secret."""
    if is_secret_location(location) or isinstance(value, dict | list):
        return toml_type_name(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote_text(value) if isinstance(value, str) else sanitize(str(value))[:_MAX_QUOTED_LENGTH]


def is_secret_location(location: Location) -> bool:
    """Return whether a location may contain a secret: a `test_value`, or anything with a name like a secret."""
    return any(
        part == "test_value" or (isinstance(part, str) and (is_secret_name(part) or _SECRET_HEADER.search(part)))
        for part in location
    )


def toml_type_name(value: object) -> str:
    """Return the name of a TOML value's type, with its article."""
    type_names: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a number"),
        (dict, "a table"),
        (list, "a list"),
        (datetime.datetime, "a date with a time"),
        (datetime.date, "a date"),
    )
    return next((type_name for kind, type_name in type_names if isinstance(value, kind)), "a time")


def check_name(location: Location, name: str, table: str, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Check that `name` is defined in `table`, unless the table itself is not valid."""
    names = document.get(table, {})
    if isinstance(names, dict) and name not in names:
        hint = f"defined: {', '.join(map(quote_text, names))}" if names else "the table is empty"
        yield Problem(location, f"{quote_text(name)} is not defined in [{table}]; {hint}")


def check_regex(location: Location, pattern: str) -> Iterator[Problem]:
    """Check that a regular expression compiles."""
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        yield Problem(location, f"is not a valid regular expression: {error}")
