"""Read a compose file: its services as plain values, and the comments of their variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.documents import DocumentError, parse_yaml, read_document, translate_failures
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.scaffold.drafts import SHARED_TEST_VALUE

_MAX_COMPOSE_BYTES = 1024**2
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>(?:[^{}]|\$\{[^{}]*\})*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_BRACED_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ComposeFile:
    """A compose file; `comments` has the comments of variables by service and name."""

    path: str
    services: Mapping[str, Mapping[str, Any]]
    configs: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict)
    has_includes: bool = False
    comments: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpolation:
    """An interpolated text; `unresolved` has the variables without value and default, `has_secret` tells of secrets."""

    text: str
    unresolved: tuple[str, ...]
    has_secret: bool = False


def read_compose_file(path: Path, name: str) -> ComposeFile:
    """Read a compose file, which messages call `name`.

    Raises:
        ConfigurationError: It is not valid YAML, or cannot be read.
    """
    with translate_failures(
        lambda problem: ConfigurationError(
            f"Cannot read {name}: {problem}", hint="Save it as UTF-8 text, or move it away"
        )
    ):
        text = read_document(path, _MAX_COMPOSE_BYTES).decode("utf-8-sig")
    try:
        document, tree = parse_yaml(text)
    except DocumentError as error:
        location = f"{name}:{error.line}" if error.line else name
        raise ConfigurationError(f"{location}: {error}", hint="Correct the compose file") from error
    comments = dict(_find_comments(tree, text.splitlines()))
    if not isinstance(document, dict):
        document = {}
    return ComposeFile(
        path=name,
        services={key: item for key, item in get_table(document, "services").items() if isinstance(item, dict)},
        configs=get_table(document, "configs"),
        secrets=get_table(document, "secrets"),
        has_includes=bool(document.get("include")),
        comments=comments,
    )


def interpolate(text: str, values: Mapping[str, str]) -> Interpolation:
    """Replace the variables in a text by their values or defaults, and secrets by the test value."""
    unresolved: list[str] = []
    secrets: list[str] = []

    def substitute(text: str) -> str:
        return _VARIABLE.sub(replace, text)

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        parts = _BRACED_VARIABLE.fullmatch(match["braced"] if match["braced"] is not None else match["bare"])
        if parts is None:
            unresolved.append(match[0])
            return ""
        name, operator = parts[1], parts[2] or ""
        if is_secret_name(name):
            secrets.append(name)
            return SHARED_TEST_VALUE
        if operator.endswith("+"):
            return substitute(parts[3]) if values.get(name) else ""
        if name in values:
            return values[name]
        if operator.endswith("-"):
            return substitute(parts[3])
        unresolved.append(name)
        return ""

    return Interpolation(substitute(text), tuple(unresolved), bool(secrets))


def get_table(document: object, key: str) -> dict[str, Any]:
    """Return the table at a key, or an empty one."""
    value = document.get(key) if isinstance(document, dict) else None
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def get_list(document: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list at a key, or an empty one."""
    value = document.get(key)
    return list(value) if isinstance(value, list) else []


def _find_comments(tree: Any, lines: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the comment after or above each variable, by service and name."""
    from lyra_tasks.dockerfile.stages import find_comment_above

    for service, node in _items(_child(tree, "services")):
        for name, key, value in _variables(_child(node, "environment")):
            # a block of text at the end of the file ends behind its last line
            last_line = lines[value.end_mark.line] if value.end_mark.line < len(lines) else ""
            trailing = last_line[value.end_mark.column :].strip()
            above = find_comment_above(lines, key.start_mark.line + 1)
            text = trailing.lstrip("# ") if trailing.startswith("#") else above
            if text:
                yield (service, name), text


def _variables(node: Any) -> Iterator[tuple[str, Any, Any]]:
    if getattr(node, "id", "") == "sequence":
        for item in node.value:
            yield str(item.value).partition("=")[0], item, item
    for key, value in _pairs(node):
        yield str(key.value), key, value


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    return ((str(key.value), value) for key, value in _pairs(node))


def _pairs(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the nodes of keys and values of a mapping, those that `<<` merges first."""
    for key, value in node.value if getattr(node, "id", "") == "mapping" else ():
        if key.value == "<<":
            for merged in value.value if value.id == "sequence" else [value]:
                yield from _pairs(merged)
        yield key, value


def _child(node: Any, name: str) -> Any:
    return next((value for key, value in _items(node) if key == name), None)
