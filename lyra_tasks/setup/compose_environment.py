"""A compose service's variables: from its table, its env files, and the comments beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from lyra_tasks.setup.compose_file import ComposeFile, entries, fill, table
from lyra_tasks.setup.draft import DraftService, Variable, set_variable
from lyra_tasks.setup.facts import Facts, assignments

_EXAMPLE = (".example", ".sample", ".dist", ".template")
"""How the example of an env file is called, behind the name of the file."""


def add_environment(draft: DraftService, name: str, raw: Mapping[str, Any], compose: ComposeFile, facts: Facts) -> None:
    """The variables of one service; the table wins over the files."""
    for path in _env_files(raw):
        example = next((each for end in _EXAMPLE if (each := f"{path}{end}") in facts.texts), "")
        file_text = facts.texts.get(path, facts.texts.get(example))
        if file_text is None:
            draft.todos.append(f"{path} is not here: name its variables in [services.{draft.name}.environment]")
        for key, value, comment in assignments(file_text or ""):
            set_variable(draft, key, value, comment, shared=True)
    pairs: list[tuple[str, Any]] = [*table(raw, "environment").items()]
    pairs += [pair(str(each)) for each in entries(raw, "environment")]
    examples = _examples(facts)
    for key, given in pairs:
        own = "" if given is None else as_text(given)
        filled = fill(own, {})
        asked = (key,) if given is None else filled.open
        comment = compose.comments.get((name, key), "") or "".join(
            examples[each][1] for each in asked if each in examples
        )
        if asked or filled.secret:
            _open_variable(draft, key, own, comment, examples)
        else:
            set_variable(draft, key, filled.text, comment, shared=True)


def _open_variable(
    draft: DraftService, key: str, written: str, comment: str, examples: Mapping[str, tuple[str, str]]
) -> None:
    """A variable whose value comes from outside: a test value from the example file, or what all secrets share."""
    set_variable(draft, key, None, comment, shared=True)
    if key not in draft.environment or draft.environment[key].secret:
        return
    filled = fill(written or f"${{{key}}}", {name: value for name, (value, _) in examples.items() if value})
    secret, value = filled.secret, None if filled.open else filled.text
    said = draft.environment[key].description
    draft.environment[key] = Variable(test_value=value, required=True, secret=secret, description=said)
    if value is None:
        draft.todos.append(f"{key} has no value for tests: give it a test_value")


def _examples(facts: Facts) -> dict[str, tuple[str, str]]:
    """The variables of the example of an env file: value and comment. `.env` itself is nobody's but its owner's."""
    found: dict[str, tuple[str, str]] = {}
    for path in (*(f".env{end}" for end in _EXAMPLE), "example.env"):
        for name, value, comment in assignments(facts.texts.get(path, "")):
            found.setdefault(name, (value, comment))
    return found


def _env_files(raw: Mapping[str, Any]) -> list[str]:
    written = raw.get("env_file") or []
    listed = written if isinstance(written, list) else [written]
    return [posixpath.normpath(str(each.get("path") if isinstance(each, dict) else each)) for each in listed]


def pair(text: str) -> tuple[str, str | None]:
    """`NAME=value` as two; None where nothing is given, which takes the value from outside."""
    name, equals, value = text.partition("=")
    return name, value if equals else None


def as_text(value: object) -> str:
    """A YAML value as Compose puts it into the environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
