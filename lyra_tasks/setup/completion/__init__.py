"""Completion: what a shell offers after the words that are typed; reads names and asks no engine."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.config.find import find
from lyra_tasks.errors import ConfigurationError, UsageError

SHELLS = ("bash", "fish", "zsh")


@dataclass(frozen=True)
class Option:
    """An option of a word by its name: the flags it is written with, and whether a value follows."""

    name: str
    flags: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class Word:
    """A word of the command line: its options, and the names of what may stand without one."""

    name: str
    options: tuple[Option, ...]
    positional: tuple[str, ...] = ()


def script(shell: str) -> str:
    """The script that a shell reads once; UsageError for a shell that is not known."""
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for {shell!r}", hint=f"there is for {', '.join(SHELLS)}")
    return (Path(__file__).parent / f"lyra.{shell}").read_text(encoding="utf-8")


def complete(typed: Sequence[str], words: Mapping[str, Word], core: Word, folder: Path) -> list[str]:
    """What may stand in place of the last of `typed`, which may be empty; nothing where files may.

    `typed` is the command line without the program; `core` has the options that stand before all words.
    """
    *before, current = _joined(typed) or [""]
    if "--" in before:
        return []
    word, expecting = _position(before, words, core)
    flag, equals, value = current.partition("=")
    if equals and (option := _option(word, flag)) is not None:
        return [f"{flag}={each}" for each in _starting(_values(word, option.name, folder), value)]
    if expecting is not None:
        return _starting(_values(word, expecting.name, folder), current)
    if current.startswith("-"):
        return _starting(sorted(flag for option in word.options for flag in option.flags), current)
    named = [each for name in word.positional for each in _values(word, name, folder)]
    return _starting([*named, *sorted(words)], current)


def _joined(typed: Sequence[str]) -> list[str]:
    """Without quotes, and with `--name = value`, as bash takes it apart, in one piece."""
    found: list[str] = []
    for each in typed:
        plain = each.replace("\\", "").lstrip("\"'")
        if plain == "=" and found:
            found[-1] += "="
        elif found and found[-1].startswith("--") and found[-1].endswith("="):
            found[-1] += plain
        else:
            found.append(plain)
    return found


def _position(before: Iterable[str], words: Mapping[str, Word], core: Word) -> tuple[Word, Option | None]:
    """The word that the cursor is behind, and the option whose value is to come."""
    word, expecting = core, None
    for each in before:
        if expecting is not None:
            expecting = None
        elif each.startswith("-"):
            option = _option(word, each)
            expecting = option if option is not None and option.takes_value else None
        elif each in words:
            word = words[each]
    return word, expecting


def _option(word: Word, flag: str) -> Option | None:
    return next((option for option in word.options if flag in option.flags), None)


def _starting(candidates: Iterable[str], text: str) -> list[str]:
    return [each for each in dict.fromkeys(candidates) if each.startswith(text)]


def _values(word: Word, option: str, folder: Path) -> list[str]:
    """The values that an option, or what stands without one, may have."""
    if option in _FIXED:
        return list(_FIXED[option])
    source = _OF_WORD.get((word.name, option)) or _OF_OPTION.get(option)
    if source is None:
        return []
    try:
        file = find(folder)
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return source(document, file.parent)
    except (ConfigurationError, OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return []  # a broken file is told by the next word, not while one types


def _names(table: str) -> Callable[[Mapping[str, Any], Path], list[str]]:
    return lambda document, _root: list(document.get(table, {}))


def _of_tests(key: str) -> Callable[[Mapping[str, Any], Path], list[str]]:
    return lambda document, _root: [str(test[key]) for test in document.get("tests", []) if test.get(key)]


def _bundles(document: Mapping[str, Any], root: Path) -> list[Path]:
    folder = root / document.get("promotion", {}).get("directory", "promotion") / document["project"]["name"]
    found = [path.parent for path in folder.glob("*/manifest.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _versions(document: Mapping[str, Any], root: Path) -> list[str]:
    return [path.name for path in _bundles(document, root)]


def _paths(document: Mapping[str, Any], root: Path) -> list[str]:
    here = Path.cwd()
    return [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in _bundles(document, root)]


def _runs(_document: Mapping[str, Any], root: Path) -> list[str]:
    return sorted((path.name for path in (root / ".lyra" / "runs").glob("*")), reverse=True)


_FIXED: Mapping[str, tuple[str, ...]] = {
    "bump": ("auto", "major", "minor", "patch"),
    "pre": ("alpha", "beta", "rc"),
    "print-completion-script": SHELLS,
}
_Source = Callable[[Mapping[str, Any], Path], list[str]]
_OF_OPTION: Mapping[str, _Source] = {
    "service": _names("services"),
    "image": _names("images"),
    "only": _of_tests("name"),
    "group": _of_tests("group"),
    "run": _runs,
}
_OF_WORD: Mapping[tuple[str, str], _Source] = {
    ("verify", "path"): _paths,
    ("bundle.pack", "version"): _versions,
    ("bundle.pack", "since"): _versions,
    ("bundle.rehearse", "version"): _versions,
    ("diff", "before"): _versions,
    ("diff", "after"): _versions,
}
