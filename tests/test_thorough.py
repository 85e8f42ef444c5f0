"""Tests that the normal check leaves out what is marked as thorough, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests import thorough as selection
from tests.thorough import examples, keep, keep_named


def thorough(values: list[Any]) -> list[Any]:
    """Return the values of the parameters that are marked as thorough."""
    return [value.values[0] for value in values if [mark.name for mark in getattr(value, "marks", ())] == ["thorough"]]


def test_first_values_stay_in_the_normal_check() -> None:
    assert thorough(keep(1, ["a", "b", "c"])) == ["b", "c"]
    assert thorough(keep(3, ["a", "b", "c"])) == []


def test_named_values_stay_in_the_normal_check() -> None:
    assert thorough(keep_named(["b"], ["a", "b", "c"])) == ["a", "c"]


@pytest.mark.parametrize(("expression", "expected"), [("slow", 100), ("slow and not thorough", 25), ("", 25)])
def test_more_examples_are_tried_beside_thorough_tests(
    expression: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_selection", expression)
    assert examples(25, thorough=100) == expected
