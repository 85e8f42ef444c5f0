"""Variables as Compose has them: `${NAME:-default}`, `.env` and the examples beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE, replace_passwords
from lyra_tasks.documents import DocumentError, find_comment_above, read_document
from lyra_tasks.redaction import is_secret_name

MAX_ENV_FILE_BYTES = 1024**2
_EXAMPLE_SUFFIXES = (".example", ".sample", ".dist", ".template")
_EXAMPLE_NAMES = {".env": ("example.env", "env.example", ".env-example", "sample.env", "env.sample")}
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>(?:[^{}]|\$\{[^{}]*\})*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_BRACED_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
_ASSIGNMENT = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[^\s=:#'"]+)[ \t]*[=:][ \t]*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<plain>[^\n]*?))[ \t]*(?:(?<=\s)#[^\n]*)?$""",
    re.MULTILINE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Interpolation:
    """An interpolated text; `unresolved` are the variables without value and default, `required` those with `?`."""

    text: str
    names: tuple[str, ...]
    unresolved: tuple[str, ...]
    required: tuple[str, ...]


def interpolate(text: str, values: Mapping[str, str]) -> Interpolation:
    """Replace the variables in a text by their values or defaults, as Compose does."""
    names: dict[str, None] = {}
    unresolved: dict[str, None] = {}
    required: dict[str, None] = {}

    def substitute(text: str) -> str:
        return _VARIABLE.sub(replace, text)

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        parts = _BRACED_VARIABLE.fullmatch(match["braced"] if match["braced"] is not None else match["bare"])
        if parts is None:
            return match[0]
        name, operator = parts[1], parts[2] or ""
        names[name] = None
        value = values.get(name)
        is_set = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("+"):
            return substitute(parts[3]) if is_set else ""
        if is_set:
            return value or ""
        if operator.endswith("-"):
            return substitute(parts[3])
        unresolved[name] = None
        if operator.endswith("?"):
            required[name] = None
        return ""

    text = substitute(text)
    return Interpolation(text, tuple(names), tuple(unresolved), tuple(required))


def list_required(texts: Iterable[str], values: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the variables in some texts that have neither value nor default, and those that Compose insists on."""
    unresolved: dict[str, None] = {}
    required: dict[str, None] = {}
    for text in texts:
        if "$" in text:
            interpolation = interpolate(text, values)
            unresolved |= dict.fromkeys(interpolation.unresolved)
            required |= dict.fromkeys(interpolation.required)
    return tuple(unresolved), tuple(required)


def find_example(path: Path) -> Path | None:
    """Return the example of an env file that lies beside it, such as `.env.example`."""
    return next((candidate for candidate in list_example_candidates(path) if candidate.is_file()), None)


def list_example_candidates(path: Path) -> tuple[Path, ...]:
    """Return every name that an example of an env file could have."""
    names = [*(f"{path.name}{suffix}" for suffix in _EXAMPLE_SUFFIXES), *_EXAMPLE_NAMES.get(path.name, ())]
    return tuple(path.with_name(name) for name in names)


@dataclass(frozen=True)
class EnvFileVariable:
    """An assignment of an env file, and the comment above it."""

    value: str
    comment: str


def read_env_file(
    path: Path, values: Mapping[str, str] | None = None, *, is_raw: bool = False
) -> dict[str, EnvFileVariable]:
    """Return the variables of an env file, which may use `values` and each other; none of a file that is missing.

    `is_raw`: a value is the rest of its line as it is.
    """
    try:
        text = read_document(path, MAX_ENV_FILE_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError, DocumentError):
        return {}
    known = dict(values or {})
    variables: dict[str, EnvFileVariable] = {}
    lines = text.split("\n")
    for match in _ASSIGNMENT.finditer(text):
        if is_raw:
            value = match[0].partition("=")[2]
        elif match["single"] is not None:
            value = match["single"]
        elif match["double"] is not None:
            value = interpolate(
                _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), match["double"]), known
            ).text
        else:
            value = interpolate(match["plain"], known).text
        comment = find_comment_above(lines, text.count("\n", 0, match.start("name")) + 1)
        variables[match["name"]] = EnvFileVariable(value, comment)
        known[match["name"]] = value
    return variables


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Write variables so that Compose reads these very values, for this user's eyes only."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={_quote(value)}\n" for name, value in values.items()), encoding="utf-8")


def _quote(value: str) -> str:
    if "'" not in value and "\\" not in value and "\n" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("\n", "\\n")
    return f'"{escaped}"'


def replace_secrets(values: Mapping[str, str], plain_names: frozenset[str]) -> dict[str, str]:
    """Return the values with a stand-in for each that is a secret by its name, and for each password in an address."""
    return {
        name: value
        if name in plain_names
        else SHARED_TEST_VALUE
        if value and is_secret_name(name)
        else replace_passwords(value)[0]
        for name, value in values.items()
    }
