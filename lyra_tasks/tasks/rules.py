"""`rules.*`: what is asked of images, containers and bundles."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.word import word


@word("list")
def listing(c: Any, json: bool = False) -> None:
    """Every rule: what it asks, how much it weighs, which rule of the runbook it serves."""
    from lyra_tasks.rules import show

    show.listed()


@word("explain", positional=("rule",), rule="the id of a rule, as `rules.list` shows it")
def explain(c: Any, rule: str, json: bool = False) -> None:
    """One rule: why there is one, how to keep it, who else asks for it."""
    from lyra_tasks.rules import show

    show.explained(rule)
