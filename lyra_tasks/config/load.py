"""From a file to a `Configuration`: every problem is found before any is reported."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.find import find, read_text, shown
from lyra_tasks.config.positions import Location, Positions, duplicate, positions
from lyra_tasks.config.problems import Problem, dotted, fault, kind_of, summed_up
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from lyra_tasks.config.models import Configuration

SCHEMA = 1
_OVERRIDES: Mapping[tuple[str, str], str] = {
    ("resources", "host_share"): "LYRA_HOST_SHARE",
    ("builder", "name"): "LYRA_BUILDER",
}
_IDENTITY = frozenset({"schema", "project", "engine"})
_AT = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where it comes from.

    `root` is the folder of `file`, both absolute; `sources` holds the line of every key that is written down,
    `overrides` the environment variable of every key that is set by one. `fault` is everything that is wrong, where
    `load_in_part` has left that out.
    """

    config: Configuration
    file: Path
    root: Path
    sources: Positions
    overrides: Mapping[Location, str]
    fault: ConfigurationError | None = None


def load(start: Path | None = None, *, rules: Mapping[str, bool] | None = None) -> Loaded:
    """Find, read and check the configuration, from `start` (default: the working directory) upwards.

    `rules` are the rules that there are, and whether a deviation may go around each; None leaves them unchecked.

    ConfigurationError if there is none or anything in it is wrong: `details` then hold every problem.
    """
    return _whole(load_in_part(start, rules=rules))


def load_file(file: Path) -> Loaded:
    """Read and check this very file, which is judged by the folder that it lies in."""
    return _whole(_load(file, None))


def load_in_part(start: Path | None = None, *, rules: Mapping[str, bool] | None = None) -> Loaded:
    """As much of the configuration as is valid, for words that only end or show what an earlier state of it made.

    ConfigurationError if it cannot be read, or if it is not certain which project and which engine it means.
    """
    return _load(find(start), rules)


def _whole(loaded: Loaded) -> Loaded:
    if loaded.fault is not None:
        raise loaded.fault
    return loaded


def _load(file: Path, rules: Mapping[str, bool] | None) -> Loaded:
    name, text = shown(file), read_text(file)
    document = _parse(text, name)
    sources = positions(text)
    overrides = _override(document)
    root = file.parent.resolve()
    _check_schema(document, name, sources)
    config, problems = _validate(document, root, rules)
    wrong = fault(problems, file=name, lines=sources, overrides=overrides) if problems else None
    if wrong is not None and any(problem.location[0] in _IDENTITY for problem in problems):
        raise wrong
    return Loaded(config, root / file.name, root, sources, overrides, wrong)


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise summed_up(name, (f"{name}:1: nested too deeply",)) from error
    except ValueError as error:
        twice = duplicate(text)
        if twice is not None:
            what = f"{dotted(twice.location)}: written twice, first on line {twice.first}; keep one of them"
            raise summed_up(name, (f"{name}:{twice.second}: {what}",)) from error
        match = _AT.fullmatch(str(error))
        message = match[1] if match else "a value is out of range"
        at_end = text.count("\n") + 1, len(text) - text.rfind("\n")
        line, column = (match[2], match[3]) if match and match[2] else at_end
        raise summed_up(name, (f"{name}:{line}:{column}: not valid TOML: {message}",)) from error


def _override(document: dict[str, Any]) -> Mapping[Location, str]:
    """Put what the environment sets into the document; returns which variable has set what."""
    used: dict[Location, str] = {}
    for (table, key), variable in _OVERRIDES.items():
        value = os.environ.get(variable)
        target = document.setdefault(table, {}) if value else None
        if isinstance(target, dict) and value:
            target[key] = _number(value) if key == "host_share" else value
            used[table, key] = variable
    return used


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _validate(
    document: dict[str, Any], root: Path, rules: Mapping[str, bool] | None
) -> tuple[Configuration, list[Problem]]:
    """The configuration, or as much of it as is valid, and everything that is wrong with it."""
    from pydantic import ValidationError

    from lyra_tasks.config.checks import check, check_deviations
    from lyra_tasks.config.models import Configuration
    from lyra_tasks.config.phrases import problems_of
    from lyra_tasks.config.salvage import follows, take_out

    document.setdefault("project", {})
    problems: list[Problem] = []
    rest = copy.deepcopy(document)
    while True:
        try:
            config = Configuration.model_validate(rest)
            break
        except ValidationError as error:
            told = {problem.location for problem in problems}
            found = problems_of(error, rest)
            problems += [problem for problem in found if problem.location not in told]
            take_out(rest, found)
    further = list(check(config, document, root))
    if rules is not None:
        further += check_deviations(config, rules)
    return config, problems + [problem for problem in further if not follows(problem, problems)]


def _check_schema(document: Mapping[str, Any], name: str, sources: Positions) -> None:
    """Nothing else can be said about a file of another schema, so that comes first and alone."""
    schema = document.get("schema", SCHEMA)
    if type(schema) is not int:
        text = f"must be a whole number, found {kind_of(schema)}"
    elif schema > SCHEMA:
        text = f"is {schema}, newer than {SCHEMA}, the newest known here; upgrade lyra-tasks"
    elif schema < SCHEMA:
        text = f"must be {SCHEMA}, found {schema}"
    else:
        return
    raise fault([Problem(("schema",), text)], file=name, lines=sources, overrides={})
