"""The open points of a configuration: its `TODO` lines."""

from __future__ import annotations

import re
from typing import NamedTuple

_TODO = re.compile(r"\s*#\s*TODO:\s*(.+)")


class OpenPoint(NamedTuple):
    """One `# TODO: …` line."""

    line: int
    text: str


def open_points(text: str) -> tuple[OpenPoint, ...]:
    """Every line of `text` that is a comment and says TODO."""
    found = ((number, _TODO.fullmatch(line.rstrip())) for number, line in enumerate(text.splitlines(), 1))
    return tuple(OpenPoint(number, match[1]) for number, match in found if match)
