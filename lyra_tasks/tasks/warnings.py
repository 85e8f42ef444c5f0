"""Warnings about the configuration before a task uses it, each once in a process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@cache
def warn_about_invalid_config(message: str, details: tuple[str, ...]) -> None:
    """Warn that only the valid parts of a configuration are used."""
    console.warn(f"{message}; continuing with its valid parts")
    for line in details:
        console.info(f"  {line}")


def warn_about_secrets(work: Workspace) -> None:
    """Warn about values of secrets that are too weak, or too common to be redacted."""
    from lyra_tasks.rules.secrets import describe_weak_secrets

    for warning in describe_weak_secrets(work.config, work.root):
        _warn_once(warning)


@cache
def _warn_once(text: str) -> None:
    console.warn(text)


@cache
def warn_about_todos(file: Path) -> None:
    """Warn in one line about what `init` left open in the configuration, which it has told in full."""
    from lyra_tasks.config.load import list_todos
    from lyra_tasks.files import display_path

    todos = list_todos(file.read_text(encoding="utf-8"))
    if todos:
        more = f" (and {len(todos) - 1} more below it)" if len(todos) > 1 else ""
        console.warn(f"{display_path(file)}:{todos[0].line}: TODO: {todos[0].text}{more}")
