"""What is wrong with a configuration, place by place: `FILE:LINE: key: what is wrong, what is allowed`."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.positions import Location, Positions, line_of
from lyra_tasks.console import clean
from lyra_tasks.errors import ConfigurationError

SECRET_NAME = re.compile(
    r"TOKEN|PASSWORD|PASSWD|SECRET|KEYS?(?![A-Z])|(?<![A-Z])PASS(?:PHRASE)?(?![A-Z])|_PWD(?![A-Z])", re.IGNORECASE
)
_SHOWN_NOWHERE = re.compile(f"{SECRET_NAME.pattern}|AUTHORIZATION|COOKIE", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60


@dataclass(frozen=True)
class Problem:
    """Something that must be changed at a place of the document; `about` is a second place that it was judged by."""

    location: Location
    text: str
    about: Location = ()


def fault(
    problems: Iterable[Problem], *, file: str, lines: Positions, overrides: Mapping[Location, str]
) -> ConfigurationError:
    """All problems as one error, in the order of the file; what a variable has set is named by the variable."""
    ordered = sorted(
        dict.fromkeys(problems), key=lambda problem: (line_of(problem.location, lines), dotted(problem.location))
    )
    details = tuple(
        f"{overrides[problem.location]}: {problem.text}"
        if problem.location in overrides
        else f"{file}:{line_of(problem.location, lines)}: {dotted(problem.location)}: {problem.text}"
        for problem in ordered
    )
    return summed_up(file, details)


def summed_up(file: str, details: tuple[str, ...]) -> ConfigurationError:
    """The error whose details are these problems."""
    count = "1 problem" if len(details) == 1 else f"{len(details)} problems"
    return ConfigurationError(
        f"{count} in {file}", hint="correct the file; `config.schema` describes every key", details=details
    )


def dotted(location: Location) -> str:
    """A location as people write it: `services.web.ports`, `tests[0].status`, `bases."python:3"`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else quoted(part))
    return text


def quoted(text: str) -> str:
    """Text in quotes, shortened, with everything escaped that could act on a terminal."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return clean(json.dumps(short, ensure_ascii=False))


def shown(location: Location, value: object) -> str:
    """A value as a message may name it: a string or number as written, else only its type, and nothing of a secret."""
    if is_secret(location) or isinstance(value, dict | list):
        return kind_of(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else clean(str(value))[:_LONGEST]


def is_secret(location: Location) -> bool:
    """Whether what stands there may be a secret: a `test_value`, or anything in a table whose name looks like one."""
    return any(part == "test_value" or (isinstance(part, str) and _SHOWN_NOWHERE.search(part)) for part in location)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken for a secret; one that names a file or a folder is none."""
    return SECRET_NAME.search(name) is not None and not name.upper().endswith(("_FILE", "_PATH", "_DIR"))


def kind_of(value: object) -> str:
    """The type of a TOML value in plain words."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (str, "a string"),
        (int, "a whole number"),
        (float, "a number"),
        (dict, "a table"),
        (list, "a list"),
        (datetime.datetime, "a date with a time"),
        (datetime.date, "a date"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "a time")


def missing_name(document: Mapping[str, Any], table: str, name: str) -> str | None:
    """What to say if `name` is not a name in `table`; None if it is one, or if the table itself is wrong."""
    names = document.get(table, {})
    if not isinstance(names, dict) or name in names:
        return None
    known = f"there are {', '.join(map(quoted, names))}" if names else f"no [{table}.…] is written"
    return f"{quoted(name)} is not a name in [{table}]; {known}"


def not_a_regex(pattern: str) -> str | None:
    """What is wrong with a regular expression; None if it compiles."""
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    return None
