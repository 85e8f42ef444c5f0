"""Find the line of each key of a TOML text, which tomllib does not report, by parsing statement by statement."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.documents import DocumentError, parse_toml

Location = tuple[str | int, ...]
Positions = Mapping[Location, int]

# Strings and comments may contain newlines, brackets and quotes. Possessive, so that no text makes it slow.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|\#[^\n]*+"
    r"|[\[\]{}\n]",
    re.DOTALL,
)
_DEPTH_CHANGES = {"[": 1, "{": 1, "]": -1, "}": -1}


@dataclass(frozen=True)
class Duplicate:
    """A key or table that is defined twice."""

    location: Location
    first_line: int
    second_line: int


@dataclass(frozen=True)
class _Statement:
    line: int
    table: Location
    value: dict[str, Any] | None
    """The keys that the statement sets in `table`, or None for a header."""


def find_positions(text: str) -> Positions:
    """Return the line of each table, key and value of a valid TOML text, by location such as `("tests", 0, "name")`."""
    lines: dict[Location, int] = {}
    for statement in _parse_statements(text):
        for end in range(1, len(statement.table) + 1):
            lines.setdefault(statement.table[:end], statement.line)
        for location, _ in walk_values(statement.table, statement.value):
            lines.setdefault(location, statement.line)
    return lines


def line_of(location: Location, lines: Positions) -> int:
    """Return the line of a location, or of the nearest enclosing table in the file; 1 for the whole document."""
    return next((lines[location[:end]] for end in range(len(location), 0, -1) if location[:end] in lines), 1)


def find_duplicate(text: str) -> Duplicate | None:
    """Return the first key or table that is defined twice in an invalid TOML text, if there is one."""
    first_lines: dict[tuple[Location, bool], int] = {}
    try:
        for statement in _parse_statements(text):
            is_table = statement.value is None
            values = [(statement.table, None)] if is_table else walk_values(statement.table, statement.value)
            for location, value in values:
                if isinstance(value, dict) and value:
                    continue
                first_line = first_lines.setdefault((location, is_table), statement.line)
                if first_line != statement.line:
                    return Duplicate(location, first_line, statement.line)
    except ValueError:
        return None
    return None


def find_deep_statement(text: str) -> int:
    """Return the line of the first statement of a TOML text that is nested too deeply, or 1."""
    for line, chunk in _split_statements(text):
        try:
            parse_toml(chunk)
        except DocumentError:
            return line
        except ValueError:
            break
    return 1


def _parse_statements(text: str) -> Iterator[_Statement]:
    table: Location = ()
    array_lengths: dict[Location, int] = {}
    for line, chunk in _split_statements(text):
        parsed = tomllib.loads(chunk)
        if chunk.lstrip().startswith("["):
            table = _header_location(parsed, array_lengths)
            yield _Statement(line, table, None)
        elif parsed:
            yield _Statement(line, table, parsed)


def _header_location(parsed: dict[str, Any], array_lengths: dict[Location, int]) -> Location:
    """Return the location that a header opens, and count it in `array_lengths` if it is an array of tables."""
    location: Location = ()
    value: Any = parsed
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        location = (*location, key)
        if isinstance(value, list):
            array_lengths[location] = array_lengths.get(location, 0) + 1
        if location in array_lengths:
            location = (*location, array_lengths[location] - 1)
    return location


def _split_statements(text: str) -> Iterator[tuple[int, str]]:
    start = depth = 0
    line = first = 1
    for token in _TOKEN.finditer(text):
        depth += _DEPTH_CHANGES.get(token[0], 0)
        line += token[0].count("\n")
        if token[0] == "\n" and depth <= 0:
            yield first, text[start : token.end()]
            start, first, depth = token.end(), line, 0
    if start < len(text):
        yield first, text[start:]


def walk_values(location: Location, value: object) -> Iterator[tuple[Location, object]]:
    """Yield all values inside a value with their locations."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*location, key), child
            yield from walk_values((*location, key), child)
