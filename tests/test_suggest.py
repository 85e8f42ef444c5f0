"""Test suggestions for names that do not exist."""

from __future__ import annotations

import pytest

from lyra_tasks.suggest import is_misspelling


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("wep", "web", True),
        ("wbe", "web", True),
        ("we", "web", True),
        ("webb", "web", True),
        ("counter", "couter", True),
        ("web-app", "webapp", True),
        ("web", "web", False),
        ("ewb", "bwe", False),
        ("redis", "redis-exporter", False),
        ("nginx", "engine", False),
        ("postgres", "postgis", False),
        ("", "a", True),
        ("ab", "ab", False),
        ("aab", "ab", True),
        ("abab", "baba", False),
    ],
)
def test_misspelling_is_one_typing_mistake(name: str, known: str, expected: bool) -> None:
    assert is_misspelling(name, known) is expected
    assert is_misspelling(known, name) is expected
