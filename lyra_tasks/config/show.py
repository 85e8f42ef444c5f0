"""The effective configuration: every value in force, and where it comes from."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from lyra_tasks.config.discovery import display_path
from lyra_tasks.config.load import LoadedConfig
from lyra_tasks.config.validation.positions import Location, line_of
from lyra_tasks.config.validation.problems import format_location, is_secret_location
from lyra_tasks.units import format_size, parse_size

HIDDEN_VALUE = "(hidden)"
_SIGNING_KEY_LOCATION: Location = ("promotion", "sign", "key")  # a path; the key itself is never read here


class Setting(NamedTuple):
    """One value in force: plain JSON, sizes as they are written; `origin` is `FILE:LINE`, `default` or `env NAME`."""

    key: str
    value: Any
    origin: str


def list_settings(loaded: LoadedConfig) -> list[Setting]:
    """Every key that has a value, in the order of the documentation; what may be a secret is hidden."""
    file = display_path(loaded.file)
    return [
        Setting(format_location(location), value, _find_origin(location, loaded, file))
        for location, value in _leaf_values((), loaded.config, None)
    ]


def _find_origin(location: Location, loaded: LoadedConfig, file: str) -> str:
    if location in loaded.overrides:
        return f"env {loaded.overrides[location]}"
    return f"{file}:{line_of(location, loaded.key_lines)}" if location in loaded.key_lines else "default"


def _leaf_values(location: Location, value: Any, annotation: Any) -> Iterator[tuple[Location, Any]]:
    """The leaves below a value: tables and lists of tables are opened, what is unset is left out."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            full_annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            yield from _leaf_values((*location, field.alias or name), getattr(value, name), full_annotation)
    elif isinstance(value, dict) and location[-1] != "json":
        for key, item in value.items():
            yield from _leaf_values((*location, key), item, annotation)
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        for index, item in enumerate(value):
            yield from _leaf_values((*location, index), item, None)
    elif value is not None:
        yield location, _format_leaf(location, value, annotation)


def _format_leaf(location: Location, value: Any, annotation: Any) -> Any:
    if value and isinstance(value, str) and _is_hidden(location):
        return HIDDEN_VALUE
    if isinstance(value, datetime.date):
        return value.isoformat()
    return format_size(value) if _is_size(annotation) else value


def _is_hidden(location: Location) -> bool:
    """What may be a secret: a value for tests, or one whose own name looks like it (a header, a build argument)."""
    if location == _SIGNING_KEY_LOCATION:
        return False
    return is_secret_location(location[-1:])


def _is_size(annotation: Any) -> bool:
    """Whether an annotation is a size, alone or in a union or a table."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return any(isinstance(item, BeforeValidator) and item.func is parse_size for item in metadata) or _is_size(
            inner
        )
    if get_origin(annotation) in (Union, types.UnionType, dict):
        return any(_is_size(argument) for argument in get_args(annotation))
    return False
