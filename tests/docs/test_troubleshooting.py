"""Every error text that the page explains is one that the program can print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
QUOTED = [" ".join(text.split()) for text in re.findall(r"^\*\*`([^`]+)`\*\*", PAGE.read_text(), re.MULTILINE)]


def templates() -> Iterator[str]:
    """Every text of the program's code, with `…` where a value is put in."""
    for path in sorted((REPOSITORY / "lyra_tasks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


TEMPLATES = list(templates())


def occurs(quoted: str) -> bool:
    """Whether a template holds all that is quoted, in this order; a value may also stand where the page has words."""
    pieces = [re.escape(piece) for piece in quoted.split("…")]
    pattern = re.compile("(?:.|\n)*?".join(pieces))
    return any(pattern.search(template) or _stands_for(template, quoted) for template in TEMPLATES)


def _stands_for(template: str, quoted: str) -> bool:
    """Whether the page only has words where the template puts values in."""
    pieces = template.split("…")
    whole = sum(map(len, pieces)) >= len(quoted) / 2
    return whole and re.fullmatch("(?:.|\n)*?".join(map(re.escape, pieces)), quoted) is not None


def test_the_page_explains_the_errors_of_the_first_weeks() -> None:
    assert len(QUOTED) == len(set(QUOTED)) > 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_quoted_text_occurs_in_the_code(quoted: str) -> None:
    assert occurs(quoted)


def test_a_text_that_nobody_prints_would_be_found() -> None:
    assert not occurs("the moon is in the way of …")
