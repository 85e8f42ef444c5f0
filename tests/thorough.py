"""Which values of a test belong to the normal check, and which to `./inv check --thorough` alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

THOROUGH = pytest.mark.thorough
_ALL_SLOW_TESTS = "slow"
"""The marker expression of `./inv check --thorough`."""

_selection = ""


def note_selection(expression: str) -> None:
    """Keep the marker expression that pytest was called with, for `examples`."""
    global _selection
    _selection = expression


def examples(normal: int, thorough: int) -> int:
    """Return how many examples a property is tried with: `thorough` ones only beside the thorough tests."""
    return thorough if _selection == _ALL_SLOW_TESTS else normal


def keep(number: int, values: Sequence[Any]) -> list[Any]:
    """Return the values as parameters; all after the first `number` ones are marked as thorough."""
    return [*values[:number], *(pytest.param(value, marks=THOROUGH) for value in values[number:])]


def keep_named(names: Collection[str], values: Sequence[str]) -> list[Any]:
    """Return the values as parameters; those that are not in `names` are marked as thorough."""
    return [value if value in names else pytest.param(value, marks=THOROUGH) for value in values]
