"""A compose file as it is written: its services as plain values, and the comments beside their variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.config.validation.problems import is_secret_name
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.init.drafts import SHARED_TEST_VALUE

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>(?:[^{}]|\$\{[^{}]*\})*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_BRACED_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ComposeFile:
    """`services` and the other tables by name; `comments` are by service and variable."""

    path: str
    services: Mapping[str, Mapping[str, Any]]
    configs: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict)
    has_includes: bool = False
    comments: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpolation:
    """Text with its `${…}` replaced; `open` are the variables that have neither a value nor a default.

    `secret`: one of them is a secret, of which only the value for tests is in the text.
    """

    text: str
    unresolved: tuple[str, ...]
    has_secret: bool = False


def read_compose_file(path: Path, display_path: str) -> ComposeFile:
    """Read a compose file; ConfigurationError names the line of what is not YAML."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        document = yaml.safe_load(text)
        comments = dict(_find_comments(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{display_path}:{mark.line + 1}" if mark else display_path
        problem = getattr(error, "problem", "") or "cannot be read"
        raise ConfigurationError(f"{place}: not valid YAML: {problem}", hint="correct the compose file") from error
    except RecursionError as error:
        raise ConfigurationError(f"{display_path}: holds itself, or is nested too deeply", hint="correct it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{display_path} cannot be read as UTF-8 text", hint="check it, or move it away"
        ) from error
    if not isinstance(document, dict):
        document = {}
    services = {
        str(name): service for name, service in get_table(document, "services").items() if isinstance(service, dict)
    }
    return ComposeFile(
        path=display_path,
        services=services,
        configs=get_table(document, "configs"),
        secrets=get_table(document, "secrets"),
        has_includes=bool(document.get("include")),
        comments=comments,
    )


def interpolate(text: str, values: Mapping[str, str]) -> Interpolation:
    """Replace the variables of a value by `values`, else by their defaults, else by nothing; secrets never."""
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
    """The table at a key; an empty one where there is none, or something else."""
    value = document.get(key) if isinstance(document, dict) else None
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def get_list(document: Mapping[str, Any], key: str) -> list[Any]:
    """The list at a key; an empty one where there is none, or something else."""
    value = document.get(key)
    return list(value) if isinstance(value, list) else []


def _find_comments(tree: Any, lines: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """The comment behind a variable, or above it."""
    from lyra_tasks.dockerfile.stages import find_comment_above

    for service, node in _items(_child(tree, "services")):
        for name, key, value in _variables(_child(node, "environment")):
            trailing = lines[value.end_mark.line][value.end_mark.column :].strip()
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
    """The keys and values of a mapping, those that `<<` merges in first."""
    for key, value in node.value if getattr(node, "id", "") == "mapping" else ():
        if key.value == "<<":
            for merged in value.value if value.id == "sequence" else [value]:
                yield from _pairs(merged)
        yield key, value


def _child(node: Any, name: str) -> Any:
    return next((value for key, value in _items(node) if key == name), None)
