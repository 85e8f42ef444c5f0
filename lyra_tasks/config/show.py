"""The effective configuration: every value in force, and where it comes from."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from lyra_tasks.config.find import shown
from lyra_tasks.config.load import Loaded
from lyra_tasks.config.positions import Location, line_of
from lyra_tasks.config.problems import dotted, is_secret
from lyra_tasks.config.units import format_size, parse_size

HIDDEN = "(hidden)"
_KEY_FILE: Location = ("promotion", "sign", "key")  # a path; the key itself is never read here


class Setting(NamedTuple):
    """One value in force: plain JSON, sizes as they are written; `origin` is `FILE:LINE`, `default` or `env NAME`."""

    key: str
    value: Any
    origin: str


def effective(loaded: Loaded) -> list[Setting]:
    """Every key that has a value, in the order of the documentation; what may be a secret is hidden."""
    file = shown(loaded.file)
    return [
        Setting(dotted(location), value, _origin(location, loaded, file))
        for location, value in _values((), loaded.config, None)
    ]


def _origin(location: Location, loaded: Loaded, file: str) -> str:
    if location in loaded.overrides:
        return f"env {loaded.overrides[location]}"
    return f"{file}:{line_of(location, loaded.sources)}" if location in loaded.sources else "default"


def _values(at: Location, value: Any, annotation: Any) -> Iterator[tuple[Location, Any]]:
    """The leaves below a value: tables and lists of tables are opened, what is unset is left out."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            whole = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            yield from _values((*at, field.alias or name), getattr(value, name), whole)
    elif isinstance(value, dict) and at[-1] != "json":
        for key, item in value.items():
            yield from _values((*at, key), item, annotation)
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        for number, item in enumerate(value):
            yield from _values((*at, number), item, None)
    elif value is not None:
        yield at, _plain(at, value, annotation)


def _plain(at: Location, value: Any, annotation: Any) -> Any:
    if value and isinstance(value, str) and _hidden(at):
        return HIDDEN
    if isinstance(value, datetime.date):
        return value.isoformat()
    return format_size(value) if _is_size(annotation) else value


def _hidden(at: Location) -> bool:
    """What may be a secret: a value for tests, or one whose own name looks like it (a header, a build argument)."""
    if at == _KEY_FILE:
        return False
    return is_secret(at[-1:])


def _is_size(annotation: Any) -> bool:
    """Whether an annotation is a size, alone or in a union or a table."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return any(isinstance(each, BeforeValidator) and each.func is parse_size for each in metadata) or _is_size(
            inner
        )
    if get_origin(annotation) in (Union, types.UnionType, dict):
        return any(_is_size(each) for each in get_args(annotation))
    return False
