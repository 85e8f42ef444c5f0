"""Every documented command and option exists, and every existing one is documented."""

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
PAGES.remove(REPOSITORY / "docs" / "composing.md")  # all of it is run, with the tasks that it defines
COMMANDS, README = REPOSITORY / "docs" / "commands.md", REPOSITORY / "README.md"
EVERYWHERE = {"--dry-run", "--json", "--quiet", "--yes"}
"""Documented once, for all tasks."""
CONTEXTS = {str(context.name): context for context in lyra_tasks.collection().to_contexts()}
_PROGRAMS = {"./inv", "inv", "invoke", "lyra"}
_OWN = {"bench", "check", "matrix"}
"""Tasks of this repository's own `tasks.py`."""
_QUOTED_ERROR = re.compile(r"^\*\*`[^`]+`\*\*", re.MULTILINE)
"""The messages in docs/troubleshooting.md, which may begin like a command."""


def flags_of(task: str) -> set[str]:
    """Return the long and short flags of a task, without those of all tasks."""
    flags = set()
    for argument in CONTEXTS[task].args.values():
        flags |= {f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}" for name in argument.names}
    return flags - EVERYWHERE


def canonical(task: str) -> str:
    """Return the name that a task is listed under."""
    return next((name for name, context in CONTEXTS.items() if task == name or task in context.aliases), "")


def rows(page: Path) -> list[list[str]]:
    """Return the cells of the table of tasks; `\\|` does not separate cells."""
    text = re.split(r"(?m)^\| command \|", page.read_text())[1].partition("\n\n")[0]
    return [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in text.splitlines()[2:]]


def tasks_in(cell: str) -> list[str]:
    """Return the first word of every code span."""
    return [span.split()[0] for span in re.findall(r"`([^`]+)`", cell)]


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield every documented command, in code blocks and code spans, with its page."""
    for page in PAGES:
        text = _QUOTED_ERROR.sub("", page.read_text())
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
            is_setting = command.split(" ")[1:2] == ["="]
            if " " in command and not is_setting and (first in _PROGRAMS or canonical(first)):
                yield page.name, command if first in _PROGRAMS else f"lyra {command}"


@pytest.mark.parametrize("page", [COMMANDS, README], ids=lambda page: page.name)
def test_documented_tasks_match_existing_tasks(page: Path) -> None:
    documented = [task for row in rows(page) for task in tasks_in(row[0])]
    assert [task for task in documented if not canonical(task)] == []
    assert set(CONTEXTS) - {canonical(task) for task in documented} == set()


def test_documented_options_match_existing_options() -> None:
    wrong = []
    for row in rows(COMMANDS):
        documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[1])) - EVERYWHERE
        for task in map(canonical, tasks_in(row[0])):
            positional = {f"--{name}" for name in lyra_tasks.collection()[task].positional or ()}
            wrong += [f"{task}: {flag} does not exist" for flag in documented - flags_of(task)]
            wrong += [f"{task}: {flag} is not documented" for flag in flags_of(task) - documented - positional]
    assert wrong == []


def test_documented_commands_parse() -> None:
    documented = list(command_lines())
    assert len(documented) > 20
    wrong = [f"{page}: {command}: {problem}" for page, command in documented if (problem := parse_problem(command))]
    assert wrong == []


def parse_problem(command: str) -> str:
    """Return what Invoke's parser says against a command line, or an empty text."""
    arguments = [argument for argument in shlex.split(command)[1:] if not argument.startswith(("[", "…"))]
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    # Positional values are paths or placeholders in capitals
    arguments = [
        argument
        for previous, argument in pairwise(["", *arguments])
        if previous.startswith("-")
        or canonical(argument)
        or argument.startswith("-")
        or not re.search(r"[/A-Z0-9]", argument)
    ]
    core: Any = Program(version="0").initial_context
    try:
        parser = Parser(contexts=lyra_tasks.collection().to_contexts(), initial=core)
        for context in parser.contexts.values():
            context.positional_args.clear()
        parser.parse_argv(arguments)
    except ParseError as error:
        return str(error)
    return ""
