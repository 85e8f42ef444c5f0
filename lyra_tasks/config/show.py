"""List and show the effective values of the configuration with their origin."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from lyra_tasks import console
from lyra_tasks.compose.model import Place
from lyra_tasks.config.load import LoadedConfig
from lyra_tasks.config.schema import full_annotation, uses_parser
from lyra_tasks.config.validation.positions import Location, line_of
from lyra_tasks.config.validation.problems import format_location, is_secret_location
from lyra_tasks.files import display_path
from lyra_tasks.results.configuration import Setting
from lyra_tasks.units import format_size, parse_size

HIDDEN_VALUE = "(hidden)"
_IMAGE_DEFAULTS: frozenset[Location] = frozenset((key,) for key in ("user", "working_dir", "stop_signal"))
_SIGNING_KEY_LOCATION: Location = ("promotion", "sign", "key")  # a path, not the key itself


def show_settings(loaded: LoadedConfig) -> tuple[Setting, ...]:
    """Show all keys that have a value, in the order of the documentation."""
    settings = list_settings(loaded)
    if not console.print_result(settings):
        for row in settings:
            value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
            console.print(f"{row.key} = {console.escape(value)}  ({row.origin})")
    return settings


def list_settings(loaded: LoadedConfig) -> tuple[Setting, ...]:
    """Return all keys that have a value, in the order of the documentation, with possible secrets hidden."""
    file = display_path(loaded.file)
    settings = tuple(
        Setting(format_location(location), value, _find_origin(location, loaded, file))
        for location, value in _leaf_values((), loaded.config, None)
    )
    return settings + tuple(_list_notes(loaded))


def _list_notes(loaded: LoadedConfig) -> Iterator[Setting]:
    """Yield the keys of the Compose project that are not carried, with the reason in place of their value."""
    if loaded.compose is not None:
        for note in loaded.compose.notes:
            place = str(loaded.compose.places.get(note.location, loaded.compose.inputs[0].name))
            yield Setting(format_location(note.location), f"(not carried: {note.message})", place)


def _find_origin(location: Location, loaded: LoadedConfig, file: str) -> str:
    if location in loaded.overrides:
        return f"env {loaded.overrides[location]}"
    if location in loaded.key_lines:
        return f"{file}:{line_of(location, loaded.key_lines)}"
    place = _find_compose_place(location, loaded)
    if place is not None:
        return str(place)
    is_from_image = location[0] == "services" and location[2:] in _IMAGE_DEFAULTS
    return "image" if is_from_image else "default"


def _find_compose_place(location: Location, loaded: LoadedConfig) -> Place | None:
    """Return where the Compose project has a value, by the nearest table that has a place."""
    if loaded.compose is None:
        return None
    document: Any = {**loaded.compose.document, "project": {"name": loaded.compose.name}}
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    places = loaded.compose.places
    return next((places[location[:end]] for end in range(len(location), 0, -1) if location[:end] in places), None)


def _leaf_values(location: Location, value: Any, annotation: Any) -> Iterator[tuple[Location, Any]]:
    """Yield the values in tables and lists of tables; unset keys are skipped."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _leaf_values((*location, field.alias or name), getattr(value, name), full_annotation(field))
    elif isinstance(value, dict) and location[-1] != "json":
        for key, item in value.items():
            yield from _leaf_values((*location, key), item, annotation)
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        for index, item in enumerate(value):
            yield from _leaf_values((*location, index), item, None)
    elif value is not None:
        yield location, _format_leaf(location, value, annotation)


def _format_leaf(location: Location, value: Any, annotation: Any) -> Any:
    may_be_secret = location != _SIGNING_KEY_LOCATION and is_secret_location(location[-1:])
    if value and isinstance(value, str) and may_be_secret:
        return HIDDEN_VALUE
    if isinstance(value, datetime.date):
        return value.isoformat()
    return format_size(value) if uses_parser(annotation, parse_size) else value
