"""Results of `init`, `config.*` and `rules.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lyra_tasks.results.documents import JsonValue

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Todo:
    """A line `# TODO: …`, numbered from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class InitFile:
    """A file of `init` with its text, or the lines appended to a file that may exist; `written` unless planned only."""

    path: str
    text: str
    appended_lines: tuple[str, ...] = ()
    written: bool = False


@dataclass(frozen=True)
class InitResult:
    """The files that `init` has written or, with --dry-run, would write; `existing` ones are kept.

    `todos` are those in the configuration, `notes` tell what was skipped.
    """

    files: tuple[InitFile, ...]
    existing: tuple[str, ...]
    todos: tuple[Todo, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """An effective value of the configuration; `origin` is `FILE:LINE`, `image`, `default` or `env NAME`."""

    key: str
    value: JsonValue
    origin: str


@dataclass(frozen=True)
class Rule:
    """A rule; `checked_by` are the commands that check it, `references` are equivalent rules of other tools.

    An error fails the command unless a deviation gives a reason; a warning is reported and recorded. A rule
    `enforced_on_promotion` is an error of `promote` and `release` only, and a warning of `test`.
    """

    id: str
    requirement: str
    rationale: str
    fix: str
    severity: Severity
    runbook: str
    checked_by: tuple[str, ...]
    references: tuple[str, ...] = ()
    allows_deviation: bool = True
    enforced_on_promotion: bool = False


@dataclass(frozen=True)
class RuleCatalogue:
    """All rules, and a version that changes with them."""

    rule_set: str
    rules: tuple[Rule, ...]
