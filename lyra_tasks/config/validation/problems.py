"""What is wrong with a configuration, place by place: `FILE:LINE: key: what is wrong, what is allowed`."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.validation.positions import Location, Positions, line_of
from lyra_tasks.console import sanitize
from lyra_tasks.errors import ConfigurationError

SECRET_NAME_PATTERN = re.compile(
    r"TOKEN|PASSWORD|PASSWD|SECRET|KEYS?(?![A-Z])|(?<![A-Z])PASS(?:PHRASE)?(?![A-Z])|_PWD(?![A-Z])", re.IGNORECASE
)
_SECRET_KEY_PATTERN = re.compile(f"{SECRET_NAME_PATTERN.pattern}|AUTHORIZATION|COOKIE", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_QUOTED_LENGTH = 60


@dataclass(frozen=True)
class Problem:
    """Something that must be changed at a place of the document; `about` is a second place that it was judged by."""

    location: Location
    message: str
    related_location: Location = ()


def problems_to_error(
    problems: Iterable[Problem], *, file: str, lines: Positions, overrides: Mapping[Location, str]
) -> ConfigurationError:
    """All problems as one error, in the order of the file; what a variable has set is named by the variable."""
    ordered = sorted(
        dict.fromkeys(problems),
        key=lambda problem: (line_of(problem.location, lines), format_location(problem.location)),
    )
    details = tuple(
        f"{overrides[problem.location]}: {problem.message}"
        if problem.location in overrides
        else f"{file}:{line_of(problem.location, lines)}: {format_location(problem.location)}: {problem.message}"
        for problem in ordered
    )
    return to_error(file, details)


def to_error(file: str, details: tuple[str, ...]) -> ConfigurationError:
    """The error whose details are these problems."""
    count = "1 problem" if len(details) == 1 else f"{len(details)} problems"
    return ConfigurationError(
        f"{count} in {file}", hint="correct the file; `config.schema` describes every key", details=details
    )


def format_location(location: Location) -> str:
    """A location as people write it: `services.web.ports`, `tests[0].status`, `bases."python:3"`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else quote_text(part))
    return text


def quote_text(text: str) -> str:
    """Text in quotes, shortened, with everything escaped that could act on a terminal."""
    shortened = text if len(text) <= _MAX_QUOTED_LENGTH else text[: _MAX_QUOTED_LENGTH - 1] + "…"
    return sanitize(json.dumps(shortened, ensure_ascii=False))


def describe_value(location: Location, value: object) -> str:
    """A value as a message may name it: a string or number as written, else only its type, and nothing of a secret."""
    if is_secret_location(location) or isinstance(value, dict | list):
        return toml_type_name(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote_text(value) if isinstance(value, str) else sanitize(str(value))[:_MAX_QUOTED_LENGTH]


def is_secret_location(location: Location) -> bool:
    """Whether what stands there may be a secret: a `test_value`, or anything in a table whose name looks like one."""
    return any(
        part == "test_value" or (isinstance(part, str) and _SECRET_KEY_PATTERN.search(part)) for part in location
    )


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken for a secret; one that names a file or a folder is none."""
    return SECRET_NAME_PATTERN.search(name) is not None and not name.upper().endswith(("_FILE", "_PATH", "_DIR"))


def toml_type_name(value: object) -> str:
    """The type of a TOML value in plain words."""
    type_names: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (str, "a string"),
        (int, "a whole number"),
        (float, "a number"),
        (dict, "a table"),
        (list, "a list"),
        (datetime.datetime, "a date with a time"),
        (datetime.date, "a date"),
    )
    return next((type_name for kind, type_name in type_names if isinstance(value, kind)), "a time")


def describe_unknown_name(document: Mapping[str, Any], table: str, name: str) -> str | None:
    """What to say if `name` is not a name in `table`; None if it is one, or if the table itself is wrong."""
    names = document.get(table, {})
    if not isinstance(names, dict) or name in names:
        return None
    hint = f"there are {', '.join(map(quote_text, names))}" if names else f"no [{table}.…] is written"
    return f"{quote_text(name)} is not a name in [{table}]; {hint}"


def describe_regex_error(pattern: str) -> str | None:
    """What is wrong with a regular expression; None if it compiles."""
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    return None
