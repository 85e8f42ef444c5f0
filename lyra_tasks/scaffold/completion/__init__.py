"""Complete command lines for shells, from names in the project and without an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.config.load import find_config, read_config
from lyra_tasks.documents import parse_toml, translate_failures
from lyra_tasks.errors import ConfigurationError, UsageError

SHELLS = ("bash", "fish", "zsh")


@dataclass(frozen=True)
class OptionSpec:
    """An option: its name, its flags, and whether it has a value."""

    name: str
    flags: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class CommandSpec:
    """A command: its options, and the names of its positional arguments."""

    name: str
    options: tuple[OptionSpec, ...]
    positional: tuple[str, ...] = ()


def completion_script(shell: str) -> str:
    """Return the completion script for a shell; raise UsageError if it is not supported."""
    if shell not in SHELLS:
        raise UsageError(f"Unknown shell {shell!r}", hint=f"Choose one of {', '.join(SHELLS)}")
    return (Path(__file__).parent / f"lyra.{shell}").read_text(encoding="utf-8")


def complete_command_line(
    arguments: Sequence[str], commands: Mapping[str, CommandSpec], core: CommandSpec, directory: Path
) -> list[str]:
    """Return the candidates for the last argument, which may be empty, or nothing where files are possible.

    `arguments` is the command line without the program, `core` has the options before the first command.
    """
    *previous, current = _join_tokens(arguments) or [""]
    if "--" in previous:
        return []
    command, pending_option = _find_command(previous, commands, core)
    flag, equals, value = current.partition("=")
    if equals and (option := _find_option(command, flag)) is not None:
        values = _filter_by_prefix(_list_values(command, option.name, directory), value)
        return [f"{flag}={candidate}" for candidate in values]
    if pending_option is not None:
        return _filter_by_prefix(_list_values(command, pending_option.name, directory), current)
    if current.startswith("-"):
        return _filter_by_prefix(sorted(flag for option in command.options for flag in option.flags), current)
    candidates = [candidate for name in command.positional for candidate in _list_values(command, name, directory)]
    return _filter_by_prefix([*candidates, *sorted(commands)], current)


def _join_tokens(arguments: Sequence[str]) -> list[str]:
    """Remove quotes, and join `--name = value`, which bash splits."""
    tokens: list[str] = []
    for argument in arguments:
        text = argument.replace("\\", "").lstrip("\"'")
        if text == "=" and tokens:
            tokens[-1] += "="
        elif tokens and tokens[-1].startswith("--") and tokens[-1].endswith("="):
            tokens[-1] += text
        else:
            tokens.append(text)
    return tokens


def _find_command(
    previous: Iterable[str], commands: Mapping[str, CommandSpec], core: CommandSpec
) -> tuple[CommandSpec, OptionSpec | None]:
    """Return the command at the cursor, and the option whose value comes next."""
    command, pending_option = core, None
    for argument in previous:
        if pending_option is not None:
            pending_option = None
        elif argument.startswith("-"):
            option = _find_option(command, argument)
            pending_option = option if option and option.takes_value else None
        elif argument in commands:
            command = commands[argument]
    return command, pending_option


def _find_option(command: CommandSpec, flag: str) -> OptionSpec | None:
    return next((option for option in command.options if flag in option.flags), None)


def _filter_by_prefix(candidates: Iterable[str], prefix: str) -> list[str]:
    return [candidate for candidate in dict.fromkeys(candidates) if candidate.startswith(prefix)]


def _list_values(command: CommandSpec, option: str, directory: Path) -> list[str]:
    if option in _FIXED_VALUES:
        return list(_FIXED_VALUES[option])
    source = _SOURCES_BY_COMMAND.get((command.name, option)) or _SOURCES_BY_OPTION.get(option)
    if source is None:
        return []
    with suppress(ConfigurationError), translate_failures(ConfigurationError):  # the next command reports it
        file = find_config(directory)
        return source(parse_toml(read_config(file)), file.parent)
    return []


def _table_names(table: str) -> Callable[[Mapping[str, Any], Path], list[str]]:
    return lambda document, _root: list(document.get(table, {}))


def _test_values(key: str) -> Callable[[Mapping[str, Any], Path], list[str]]:
    return lambda document, _root: [str(test[key]) for test in document.get("tests", []) if test.get(key)]


def _list_bundles(document: Mapping[str, Any], root: Path) -> list[Path]:
    directory = root / document.get("promotion", {}).get("directory", "promotion") / document["project"]["name"]
    bundles = [path.parent for path in directory.glob("*/manifest.json")]
    return sorted(bundles, key=lambda path: path.stat().st_mtime, reverse=True)


def _bundle_versions(document: Mapping[str, Any], root: Path) -> list[str]:
    return [path.name for path in _list_bundles(document, root)]


def _bundle_paths(document: Mapping[str, Any], root: Path) -> list[str]:
    working_directory = Path.cwd()
    return [
        str(path.relative_to(working_directory) if path.is_relative_to(working_directory) else path)
        for path in _list_bundles(document, root)
    ]


def _run_names(_document: Mapping[str, Any], root: Path) -> list[str]:
    return sorted((path.name for path in (root / ".lyra" / "runs").glob("*")), reverse=True)


_FIXED_VALUES: Mapping[str, tuple[str, ...]] = {
    "bump": ("auto", "major", "minor", "patch"),
    "pre": ("alpha", "beta", "rc"),
    "print-completion-script": SHELLS,
}
_Source = Callable[[Mapping[str, Any], Path], list[str]]
_SOURCES_BY_OPTION: Mapping[str, _Source] = {
    "service": _table_names("services"),
    "image": _table_names("images"),
    "only": _test_values("name"),
    "group": _test_values("group"),
    "run": _run_names,
}
_SOURCES_BY_COMMAND: Mapping[tuple[str, str], _Source] = {
    ("verify", "path"): _bundle_paths,
    ("bundle.pack", "version"): _bundle_versions,
    ("bundle.pack", "since"): _bundle_versions,
    ("bundle.rehearse", "version"): _bundle_versions,
    ("bundle.rehearse", "from"): _bundle_versions,
    ("bundle.rehearse", "write"): _test_values("name"),
    ("bundle.rehearse", "read"): _test_values("name"),
    ("bundle.remove", "version"): _bundle_versions,
    ("diff", "before"): _bundle_versions,
    ("diff", "after"): _bundle_versions,
}
