"""A compose file as it is written: its services as plain values, and the comments beside their variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.config.problems import is_secret_name
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.setup.draft import SHARED_TEST_VALUE

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<braced>(?:[^{}]|\$\{[^{}]*\})*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))"
)
_BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ComposeFile:
    """`services` and the other tables by name; `comments` are by service and variable."""

    path: str
    services: Mapping[str, Mapping[str, Any]]
    configs: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict)
    included: bool = False
    comments: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """Text with its `${…}` replaced; `open` are the variables that have neither a value nor a default.

    `secret`: one of them is a secret, of which only the value for tests is in the text.
    """

    text: str
    open: tuple[str, ...]
    secret: bool = False


def read_compose(path: Path, shown: str) -> ComposeFile:
    """Read a compose file; ConfigurationError names the line of what is not YAML."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        document = yaml.safe_load(text)
        comments = dict(_comments(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}" if mark else shown
        problem = getattr(error, "problem", "") or "cannot be read"
        raise ConfigurationError(f"{place}: not valid YAML: {problem}", hint="correct the compose file") from error
    except RecursionError as error:
        raise ConfigurationError(f"{shown}: holds itself, or is nested too deeply", hint="correct it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{shown} cannot be read as UTF-8 text", hint="check it, or move it away") from error
    if not isinstance(document, dict):
        document = {}
    services = {str(name): each for name, each in table(document, "services").items() if isinstance(each, dict)}
    return ComposeFile(
        path=shown,
        services=services,
        configs=table(document, "configs"),
        secrets=table(document, "secrets"),
        included=bool(document.get("include")),
        comments=comments,
    )


def fill(text: str, values: Mapping[str, str]) -> Filled:
    """Replace the variables of a value by `values`, else by their defaults, else by nothing; secrets never."""
    missing: list[str] = []
    secrets: list[str] = []

    def word(text: str) -> str:
        return _REFERENCE.sub(one, text)

    def one(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        parts = _BRACED.fullmatch(match["braced"] if match["braced"] is not None else match["bare"])
        if parts is None:
            missing.append(match[0])
            return ""
        name, operator = parts[1], parts[2] or ""
        if is_secret_name(name):
            secrets.append(name)
            return SHARED_TEST_VALUE
        if operator.endswith("+"):
            return word(parts[3]) if values.get(name) else ""
        if name in values:
            return values[name]
        if operator.endswith("-"):
            return word(parts[3])
        missing.append(name)
        return ""

    return Filled(word(text), tuple(missing), bool(secrets))


def table(document: object, key: str) -> dict[str, Any]:
    """The table at a key; an empty one where there is none, or something else."""
    value = document.get(key) if isinstance(document, dict) else None
    return {str(name): each for name, each in value.items()} if isinstance(value, dict) else {}


def entries(document: Mapping[str, Any], key: str) -> list[Any]:
    """The list at a key; an empty one where there is none, or something else."""
    value = document.get(key)
    return list(value) if isinstance(value, list) else []


def _comments(tree: Any, lines: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """The comment behind a variable, or above it."""
    from lyra_tasks.config.stages import comment_above

    for service, node in _items(_child(tree, "services")):
        for name, key, value in _variables(_child(node, "environment")):
            behind = lines[value.end_mark.line][value.end_mark.column :].strip()
            above = comment_above(lines, key.start_mark.line + 1)
            text = behind.lstrip("# ") if behind.startswith("#") else above
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
    """The keys and values of a mapping, those that `<<` merges in first."""
    for key, value in node.value if getattr(node, "id", "") == "mapping" else ():
        if key.value == "<<":
            for merged in value.value if value.id == "sequence" else [value]:
                yield from _pairs(merged)
        yield key, value


def _child(node: Any, wanted: str) -> Any:
    return next((value for key, value in _items(node) if key == wanted), None)
