"""Complete command lines for shells, from names in the project and without an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import CACHE_FILE
from lyra_tasks.compose.overrides import merge_tables
from lyra_tasks.config.load import find_config, read_config
from lyra_tasks.documents import parse_foreign_json, parse_toml, read_document, translate_failures
from lyra_tasks.errors import ConfigurationError, UsageError
from lyra_tasks.files import display_path

SHELLS = ("bash", "fish", "zsh")
_Source = Callable[[Mapping[str, Any], Path], list[str]]


@dataclass(frozen=True)
class CommandSpec:
    """A command: the flags of its options, each with the name of its value or '', and its positional arguments."""

    name: str
    options: Mapping[str, str]
    positional: tuple[str, ...] = ()


def completion_script(shell: str) -> str:
    """Return the completion script for a shell; raise UsageError if it is not supported."""
    if shell not in SHELLS:
        raise UsageError(f"Unknown shell {shell!r}", hint=f"Choose one of {', '.join(SHELLS)}")
    return (Path(__file__).parent / f"lyra.{shell}").read_text(encoding="utf-8")


def complete_command_line(
    arguments: Iterable[str], commands: Mapping[str, CommandSpec], core: CommandSpec, directory: Path
) -> list[str]:
    """Return the candidates for the last argument, which may be empty, or nothing where files are possible.

    `arguments` is the command line without the program, `core` has the options before the first command.
    """
    *previous, current = _join_tokens(arguments) or [""]
    if "--" in previous:
        return []
    command, option = _find_command(previous, commands, core)
    flag, equals, _ = current.partition("=")
    if equals and flag in command.options:
        candidates = [f"{flag}={value}" for value in _list_values(command, command.options[flag], directory)]
    elif option:
        candidates = _list_values(command, option, directory)
    elif current.startswith("-"):
        candidates = sorted(command.options)
    else:
        candidates = [value for name in command.positional for value in _list_values(command, name, directory)]
        candidates += sorted(commands)
    return [candidate for candidate in dict.fromkeys(candidates) if candidate.startswith(current)]


def _join_tokens(arguments: Iterable[str]) -> list[str]:
    """Remove quotes, and join `--name = value`, which bash splits."""
    tokens: list[str] = []
    for argument in arguments:
        text = argument.replace("\\", "").lstrip("\"'")
        if tokens and (text == "=" or re.fullmatch("--.*=", tokens[-1])):
            tokens[-1] += text
        else:
            tokens.append(text)
    return tokens


def _find_command(
    previous: Iterable[str], commands: Mapping[str, CommandSpec], core: CommandSpec
) -> tuple[CommandSpec, str]:
    """Return the command at the cursor, and the name of the value that comes next, or ''."""
    command, option = core, ""
    for argument in previous:
        if option:
            option = ""
        elif argument.startswith("-"):
            option = command.options.get(argument, "")
        else:
            command = commands.get(argument, command)
    return command, option


def _list_values(command: CommandSpec, option: str, directory: Path) -> list[str]:
    if option in _FIXED_VALUES:
        return list(_FIXED_VALUES[option])
    source = _SOURCES.get(f"{command.name} {option}") or _SOURCES.get(option)
    if source is None:
        return []
    with suppress(ConfigurationError), translate_failures(ConfigurationError):  # the next command reports it
        file = find_config(directory)
        return source(_read_tables(file), file.parent)
    return []


def _read_tables(file: Path) -> dict[str, Any]:
    """Return the configuration, with the tables of the Compose project as the last command read it."""
    cache = file.parent / CACHE_FILE
    compose: dict[str, Any] = parse_foreign_json(read_document(cache)) if cache.is_file() else {}
    tables = {**compose.get("document", {}), "project": {"name": compose.get("name", "")}}
    return merge_tables(tables, parse_toml(read_config(file)))


def _test_values(key: str) -> _Source:
    return lambda document, _: [str(test[key]) for test in document.get("tests", []) if test.get(key)]


def _list_bundles(document: Mapping[str, Any], root: Path) -> list[Path]:
    directory = root / document.get("promotion", {}).get("directory", "promotion") / document["project"]["name"]
    bundles = [path.parent for path in directory.glob("*/manifest.json")]
    return sorted(bundles, key=lambda path: path.stat().st_mtime, reverse=True)


def _list_versions(document: Mapping[str, Any], root: Path) -> list[str]:
    return [path.name for path in _list_bundles(document, root)]


_FIXED_VALUES: Mapping[str, tuple[str, ...]] = {
    "bump": ("auto", "major", "minor", "patch"),
    "pre": ("alpha", "beta", "rc"),
    "print-completion-script": SHELLS,
}
_SOURCES: Mapping[str, _Source] = {
    "service": lambda document, _: list(document.get("services", {})),
    "image": lambda document, _: list(document.get("images", {})),
    "group": _test_values("group"),
    "run": lambda _, root: sorted((path.name for path in (root / ".lyra" / "runs").glob("*")), reverse=True),
    "verify path": lambda document, root: list(map(display_path, _list_bundles(document, root))),
    **dict.fromkeys(("only", "bundle.rehearse write", "bundle.rehearse read"), _test_values("name")),
    **dict.fromkeys(("diff before", "diff after", "bundle.pack since", "bundle.rehearse from"), _list_versions),
    **dict.fromkeys((f"bundle.{command} version" for command in ("pack", "rehearse", "remove")), _list_versions),
}
"""The names of options and arguments that stand for something, after the command if those of others do not."""
