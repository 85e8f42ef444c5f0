"""Every error message that the page explains occurs in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
QUOTED = [" ".join(text.split()) for text in re.findall(r"^\*\*`([^`]+)`\*\*", PAGE.read_text(), re.MULTILINE)]


def templates() -> Iterator[str]:
    """Yield every text in the code, with `…` for each inserted value."""
    for path in sorted((REPOSITORY / "lyra_tasks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


@cache
def distinct_templates() -> frozenset[str]:
    return frozenset(templates())


def occurs(quoted: str) -> bool:
    """Return whether a template contains the quoted pieces in this order, or matches with values inserted."""
    pieces = quoted.split("…")
    pattern = re.compile(".*?".join(map(re.escape, pieces)), re.DOTALL)
    return any(
        (all(piece in template for piece in pieces) and pattern.search(template))
        or _matches_filled_in(template, quoted)
        for template in distinct_templates()
    )


def _matches_filled_in(template: str, quoted: str) -> bool:
    """Return whether the page quotes the template with values inserted."""
    pieces = template.split("…")
    is_long_enough = sum(map(len, pieces)) >= len(quoted) / 2
    has_all = is_long_enough and all(piece in quoted for piece in pieces)
    return has_all and re.fullmatch(".*?".join(map(re.escape, pieces)), quoted, re.DOTALL) is not None


def test_page_explains_many_distinct_errors() -> None:
    assert len(QUOTED) == len(set(QUOTED)) > 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_quoted_error_occurs_in_code(quoted: str) -> None:
    assert occurs(quoted)


def test_unknown_error_text_is_detected() -> None:
    assert not occurs("the moon is in the way of …")
