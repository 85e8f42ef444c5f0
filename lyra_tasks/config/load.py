"""Find `.lyra.toml`, load a `Configuration` from it, and report all problems at once."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.compose.overrides import list_refusals, merge_overrides, read_settings, suggest_ignoring
from lyra_tasks.config.validation.positions import (
    Location,
    Positions,
    find_deep_statement,
    find_duplicate,
    find_positions,
)
from lyra_tasks.config.validation.problems import (
    Problem,
    format_location,
    problems_to_error,
    quote_text,
    to_error,
    toml_type_name,
)
from lyra_tasks.digests import json_sha256, sha256_hex
from lyra_tasks.documents import DocumentError, describe_failure, parse_toml, read_document
from lyra_tasks.errors import ConfigurationError, LyraError
from lyra_tasks.files import display_path, escape_surrogates
from lyra_tasks.results.configuration import Todo

if TYPE_CHECKING:
    from lyra_tasks.compose.model import ComposeProject
    from lyra_tasks.config.models import Configuration

CONFIG_FILE_NAME = ".lyra.toml"
MAX_CONFIG_BYTES = 1024**2
SCHEMA_VERSION = 1
_OVERRIDE_VARIABLES: Mapping[tuple[str, str], str] = {
    ("resources", "host_share"): "LYRA_HOST_SHARE",
    ("builder", "name"): "LYRA_BUILDER",
    ("engine", "context"): "LYRA_ENGINE",
}
_IDENTITY_KEYS = frozenset({"schema", "project", "engine"})
_TOML_ERROR = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TODO = re.compile(r"\s*#\s*TODO:\s*(.+)")


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and its origin.

    `root` is the directory of `file`, both absolute. `key_lines` has the line of every key in the file, `overrides`
    the environment variable of every key that is set by one. `compose` is the Compose project, which the file
    overrides. `error` has the problems of a partial configuration.
    """

    config: Configuration
    file: Path
    root: Path
    key_lines: Positions
    overrides: Mapping[Location, str]
    error: LyraError | None = None
    compose: ComposeProject | None = None

    @property
    def input_files(self) -> tuple[Path, ...]:
        """Return the files that the configuration comes from and images and bundle are made from."""
        return (self.file, *(self.compose.inputs if self.compose is not None else ()))

    @property
    def digest(self) -> str:
        """Return a hash of the file, and of the tables that come from Compose."""
        compose = json_sha256(self.compose.document) if self.compose is not None else ""
        return sha256_hex(self.file.read_bytes() + compose.encode())


def load_config(start: Path | None = None, *, rules: Mapping[str, bool] | None = None) -> LoadedConfig:
    """Find, read and validate the configuration, searching upwards from `start` (default: the working directory).

    `rules` maps the id of each rule to whether it permits deviations; None skips the check of deviations. Raises
    ConfigurationError if there is no configuration, or with all problems of an invalid one in `details`.
    """
    loaded = load_partial_config(start, rules=rules)
    if loaded.error is not None:
        raise loaded.error
    return loaded


def load_partial_config(start: Path | None = None, *, rules: Mapping[str, bool] | None = None) -> LoadedConfig:
    """Load the valid part of the configuration, for commands that stop or show what an earlier version of it created.

    Raises ConfigurationError if the file cannot be read, or its project or engine is not valid.
    """
    return load_config_file(find_config(start), rules)


def load_config_file(file: Path, rules: Mapping[str, bool] | None = None, *, text: str | None = None) -> LoadedConfig:
    """Load the valid part of this file, as `load_partial_config` does; with `text`, as if that were its content."""
    name, text = display_path(file), read_config(file) if text is None else text
    document = _parse_toml(text, name)
    lines = find_positions(text)
    overrides = _apply_overrides(document)
    root = file.parent.resolve()
    if (printable := escape_surrogates(str(root))) != str(root):
        raise ConfigurationError(
            f"The path of the project is not valid UTF-8: {printable}", hint="Rename the directory"
        )
    _check_schema(document, name, lines)
    locate_problems = partial(problems_to_error, file=name, lines=lines, overrides={})
    compose, compose_error = _read_compose(document, root, locate_problems)
    config, problems = _validate(document if compose is None else merge_overrides(compose, document), root, rules)
    places = compose.places if compose is not None else {}
    if compose is not None and compose.name and ("project", "name") not in {**lines, **places}:
        overrides["project", "name"] = "COMPOSE_PROJECT_NAME"
    refusals = tuple(list_refusals(compose, document)) if compose is not None else ()
    settled = {finding.override for finding in refusals}  # what is missing because of it is no problem of its own
    problems = [problem for problem in problems if problem.location not in settled]
    problems += [Problem(finding.location, finding.message) for finding in refusals]
    error: LyraError | None = None
    if problems:
        error = problems_to_error(problems, file=name, lines=lines, overrides=overrides, places=places)
        error.hint = suggest_ignoring(refusals, document) or error.hint
        if any(problem.location[0] in _IDENTITY_KEYS for problem in problems):
            raise compose_error or error
    return LoadedConfig(config, root / file.name, root, lines, overrides, compose_error or error, compose)


def _read_compose(
    document: Mapping[str, Any], root: Path, locate_problems: Callable[[Iterable[Problem]], LyraError]
) -> tuple[ComposeProject | None, LyraError | None]:
    """Return the Compose project, or the error that prevents reading it; neither if there is none."""
    from lyra_tasks.compose.cache import read_cached_project
    from lyra_tasks.compose.locate import find_wrong_files

    settings = read_settings(document)
    problems = [
        Problem(("compose", "files", number), f"{quote_text(name)} {problem}")
        for number, name, problem in find_wrong_files(root, settings)
    ]
    if problems:
        return None, locate_problems(problems)
    try:
        return read_cached_project(root, settings), None
    except LyraError as error:
        return None, error


def find_config(start: Path | None = None) -> Path:
    """Return the file that `LYRA_CONFIG` names, or the nearest `.lyra.toml` upwards from `start` (default: cwd)."""
    if override := os.environ.get("LYRA_CONFIG"):
        file = _working_directory() / override
        if not os.path.lexists(file):
            raise ConfigurationError(
                f"LYRA_CONFIG names {display_path(file)}, which does not exist", hint="Correct or unset LYRA_CONFIG"
            )
        return file
    directory = _working_directory() if start is None else start.absolute()
    for candidate in (directory, *directory.parents):
        if os.path.lexists(candidate / CONFIG_FILE_NAME):
            return candidate / CONFIG_FILE_NAME
    raise ConfigurationError(
        f"No {CONFIG_FILE_NAME} in {directory} or a directory above it",
        hint=f"`init` writes a {CONFIG_FILE_NAME} from what is here; `config.schema` describes every key",
    )


def read_config(file: Path) -> str:
    """Return the text of a configuration file: a regular UTF-8 file without a BOM, of at most `MAX_CONFIG_BYTES`."""
    data = _read_bytes(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(file, "UTF-16, not UTF-8", "Save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _unreadable(file, "begins with a byte order mark", "Save it as UTF-8 without a BOM")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(file, f"not valid UTF-8 (line {line})", "Save it as UTF-8") from error


def _read_bytes(file: Path) -> bytes:
    try:
        return read_document(file, MAX_CONFIG_BYTES)
    except OSError as error:
        raise _unreadable(file, describe_failure(error), "Check its permissions") from error
    except DocumentError as error:
        raise _unreadable(file, str(error), "Replace it by a TOML file, of at most 1 MiB") from error


def _unreadable(file: Path, reason: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"Cannot read {display_path(file)}: {reason}", hint=hint)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The working directory no longer exists", hint="Change to the project's directory"
        ) from error


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except DocumentError as error:
        raise to_error(name, (f"{name}:{error.line or find_deep_statement(text)}: {error}",)) from error
    except ValueError as error:
        duplicate = find_duplicate(text)
        if duplicate is not None:
            key = format_location(duplicate.location)
            detail = f"{key}: written twice, first on line {duplicate.first_line}; keep one of them"
            raise to_error(name, (f"{name}:{duplicate.second_line}: {detail}",)) from error
        match = _TOML_ERROR.fullmatch(str(error))
        message = match[1] if match else "a value is out of range"
        end_of_text = text.count("\n") + 1, len(text) - text.rfind("\n")
        line, column = (match[2], match[3]) if match and match[2] else end_of_text
        raise to_error(name, (f"{name}:{line}:{column}: not valid TOML: {message}",)) from error


def _apply_overrides(document: dict[str, Any]) -> dict[Location, str]:
    """Put values from the environment into the document and return the variable of each overridden key."""
    overrides: dict[Location, str] = {}
    for (table, key), variable in _OVERRIDE_VARIABLES.items():
        value = os.environ.get(variable)
        if value and isinstance(section := document.setdefault(table, {}), dict):
            section[key] = value
            with suppress(ValueError):
                section[key] = float(value) if key == "host_share" else value
            overrides[table, key] = variable
    return overrides


def _validate(
    document: dict[str, Any], root: Path, rules: Mapping[str, bool] | None
) -> tuple[Configuration, list[Problem]]:
    """Return the valid part of the configuration and all problems."""
    from pydantic import ValidationError

    from lyra_tasks.config.models import Configuration
    from lyra_tasks.config.validation.consistency import check_consistency, check_deviations
    from lyra_tasks.config.validation.pydantic_errors import convert_validation_error, drop_invalid, is_caused_by

    document.setdefault("project", {})
    problems: list[Problem] = []
    valid_part = copy.deepcopy(document)
    while True:
        try:
            config = Configuration.model_validate(valid_part)
            break
        except ValidationError as error:
            known_locations = {problem.location for problem in problems}
            new_problems = convert_validation_error(error, valid_part)
            problems += [problem for problem in new_problems if problem.location not in known_locations]
            drop_invalid(valid_part, new_problems)
    inconsistencies = list(check_consistency(config, document, root))
    if rules is not None:
        inconsistencies += check_deviations(config, rules)
    return config, problems + [problem for problem in inconsistencies if not is_caused_by(problem, problems)]


def _check_schema(document: Mapping[str, Any], name: str, lines: Positions) -> None:
    """Check the schema version first, since another version could change the meaning of everything else."""
    schema = document.get("schema", SCHEMA_VERSION)
    if type(schema) is not int:
        message = f"must be an integer, found {toml_type_name(schema)}"
    elif schema > SCHEMA_VERSION:
        message = f"is {schema}, newer than {SCHEMA_VERSION}, the newest known here; upgrade lyra-tasks"
    elif schema < SCHEMA_VERSION:
        message = f"must be {SCHEMA_VERSION}, found {schema}"
    else:
        return
    raise problems_to_error([Problem(("schema",), message)], file=name, lines=lines, overrides={})


def list_todos(text: str) -> tuple[Todo, ...]:
    """Return the TODO comments of a configuration file's text."""
    matches = ((number, _TODO.fullmatch(line.rstrip())) for number, line in enumerate(text.splitlines(), 1))
    return tuple(Todo(number, match[1]) for number, match in matches if match)
