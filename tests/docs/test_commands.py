"""Every command that the documentation names exists, with its options; every word there is, is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.program import Program

import lyra_tasks

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDS, README = REPOSITORY / "docs" / "commands.md", REPOSITORY / "README.md"
EVERYWHERE = {"--dry-run", "--json", "--quiet", "--yes"}
"""Documented once, for all words."""
CONTEXTS = {str(context.name): context for context in lyra_tasks.collection().to_contexts()}
_PROGRAMS = {"./inv", "inv", "invoke", "lyra"}
_OWN = {"bench", "check", "matrix"}
"""Words of this repository's own `tasks.py`."""


def flags_of(word: str) -> set[str]:
    """The long and short flags of a word, without those of every word."""
    found = set()
    for argument in CONTEXTS[word].args.values():
        found |= {f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}" for name in argument.names}
    return found - EVERYWHERE


def canonical(word: str) -> str:
    """A word by the name that it is listed under."""
    return next((name for name, context in CONTEXTS.items() if word == name or word in context.aliases), "")


def rows(page: Path) -> list[list[str]]:
    """The cells of the table of words; `\\|` is no border."""
    text = page.read_text().partition("| word |")[2].partition("\n\n")[0]
    return [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in text.splitlines()[2:]]


def named(cell: str) -> list[str]:
    """The first word of every span of code."""
    return [span.split()[0] for span in re.findall(r"`([^`]+)`", cell)]


def command_lines() -> Iterator[tuple[str, str]]:
    """Every command of the documentation, with its page: lines of code blocks, and spans of code."""
    for page in PAGES:
        text = page.read_text()
        own = _OWN | set(re.findall(r"^def (\w+)\(c", text, re.MULTILINE))
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for line in text.splitlines() if line.startswith("    ")]
        lines += [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", text)
        for line in lines:
            command = re.split(r"\s#\s|\s+>|\s\|\s|\s&&\s", line.strip().removeprefix("$ "))[0].strip()
            first = command.split(" ")[0]
            if own & set(command.split(" ")):
                continue
            quoted_error = first == "status" and "…" in command
            if " " in command and (first in _PROGRAMS or canonical(first)) and not quoted_error:
                yield page.name, command if first in _PROGRAMS else f"lyra {command}"


@pytest.mark.parametrize("page", [COMMANDS, README], ids=lambda page: page.name)
def test_every_word_is_documented_and_every_documented_word_exists(page: Path) -> None:
    documented = [word for row in rows(page) for word in named(row[0])]
    assert [word for word in documented if not canonical(word)] == []
    assert set(CONTEXTS) - {canonical(word) for word in documented} == set()


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    wrong = []
    for row in rows(COMMANDS):
        documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[1])) - EVERYWHERE
        for word in map(canonical, named(row[0])):
            positional = {f"--{name}" for name in lyra_tasks.collection()[word].positional or ()}
            wrong += [f"{word}: {flag} does not exist" for flag in documented - flags_of(word)]
            wrong += [f"{word}: {flag} is not documented" for flag in flags_of(word) - documented - positional]
    assert wrong == []


def test_every_command_in_the_documentation_parses() -> None:
    found = list(command_lines())
    assert len(found) > 20
    wrong = [f"{page}: {command}: {problem}" for page, command in found if (problem := parsed(command))]
    assert wrong == []


def parsed(command: str) -> str:
    """What Invoke's own parser has against a command line; nothing if it is right."""
    words = [word for word in shlex.split(command)[1:] if not word.startswith(("[", "…"))]
    if "--" in words:
        words = words[: words.index("--")]
    # what may stand without an option: a path, or a name in capitals that stands for something
    words = [
        word
        for before, word in pairwise(["", *words])
        if before.startswith("-") or canonical(word) or word.startswith("-") or not re.search(r"[/A-Z0-9]", word)
    ]
    core: Any = Program(version="0").initial_context
    try:
        parser = Parser(contexts=lyra_tasks.collection().to_contexts(), initial=core)
        for context in parser.contexts.values():
            context.positional_args.clear()
        parser.parse_argv(words)
    except ParseError as error:
        return str(error)
    return ""
