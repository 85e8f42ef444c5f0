"""Describe `.lyra.toml` from its models: as a JSON Schema for editors, as a list of keys for the documentation."""

from __future__ import annotations

import ast
import inspect
import json
import types
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.validation.pydantic_errors import find_model
from lyra_tasks.config.values import Table
from lyra_tasks.units import format_duration, format_size, parse_duration, parse_size

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLACEHOLDERS = {"bases": "B", "images": "I", "services": "S"}


class ConfigKey(NamedTuple):
    """A key of the configuration; `default` is its TOML text, or empty."""

    table: str
    name: str
    required: bool
    default: str
    description: str


def build_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `.lyra.toml`, with sizes and durations as users write them."""
    document: dict[str, Any] = _simplify_definition(Configuration.model_json_schema(), Configuration)
    models = {model.__name__: model for model in Table.__subclasses__()}
    for name, definition in document["$defs"].items():
        document["$defs"][name] = _simplify_definition(definition, models[name])
    return {"$schema": SCHEMA_DIALECT, **document, "title": ".lyra.toml of lyra-tasks"}


def list_keys(model: type[BaseModel] = Configuration, table: str = "") -> Iterator[ConfigKey]:
    """Yield all keys of a table and the tables in it, in the order of the documentation."""
    nested: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner, many = find_model(field.annotation)
        if inner is not None:
            path = f"{table}.{key}" if table else key
            is_array = _is_array_of_tables(field.annotation)
            placeholder = _PLACEHOLDERS.get(key, "X") if many and not is_array else ""
            nested.append((inner, f"[[{path}]]" if is_array else f"{path}.{placeholder}" if placeholder else path))
        if inner is None or (table and (not many or _is_union(field.annotation))):
            description = _field_descriptions(model).get(name, "")
            yield ConfigKey(table, key, field.is_required(), _format_default(field), description)
    for inner, path in nested:
        yield from list_keys(inner, path)


def _is_array_of_tables(annotation: Any) -> bool:
    """Return whether tables of this annotation are in a list, if only as one of several forms."""
    if _is_union(annotation) or get_origin(annotation) is Annotated:
        return any(_is_array_of_tables(argument) for argument in get_args(annotation))
    return get_origin(annotation) is list and find_model(annotation)[0] is not None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


@cache
def _field_descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the text under each field of a table.

    It is parsed from the source here, since all commands load the models, but few show descriptions.
    """
    descriptions: dict[str, str] = {}
    (definition,) = ast.parse(inspect.getsource(model)).body
    for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(description))):
                descriptions[name] = " ".join(description.split())
    return descriptions


def _format_default(field: FieldInfo) -> str:
    """Return a default as TOML, or an empty text for one that only means "not set"."""
    value = field.get_default(call_default_factory=True)
    if field.is_required() or isinstance(value, BaseModel) or value in (None, "", [], {}):
        return ""
    annotation = full_annotation(field)
    if uses_parser(annotation, parse_size):
        value = format_size(value)
    elif uses_parser(annotation, parse_duration):
        value = format_duration(value)
    return json.dumps(value)


def full_annotation(field: FieldInfo) -> Any:
    """Return the annotation of a field, with the metadata that pydantic separates from it."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def uses_parser(annotation: Any, parser: object) -> bool:
    """Return whether values of this annotation, or of a part of its union or table, are parsed by `parser`."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inner, *metadata = arguments
        return uses_parser(inner, parser) or any(
            isinstance(validator, BeforeValidator) and validator.func is parser for validator in metadata
        )
    return (_is_union(annotation) or get_origin(annotation) is dict) and any(
        uses_parser(argument, parser) for argument in arguments
    )


def _simplify_definition(definition: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Adapt pydantic's schema of a table to TOML: no null, no generated titles, defaults as users write them."""
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    for key, property_schema in definition["properties"].items():
        property_schema.pop("title", None)
        property_schema.pop("default", None)
        if default := _format_default(model.model_fields[names[key]]):
            property_schema["default"] = json.loads(default)
        property_schema["description"] = _field_descriptions(model).get(names[key], "")
        if "patternProperties" in property_schema:
            property_schema["additionalProperties"] = False
        arms = [arm for arm in property_schema.get("anyOf", []) if arm.get("type") != "null"]
        if len(arms) == 1:
            property_schema.pop("anyOf")
            property_schema.update({name: value for name, value in arms[0].items() if name not in property_schema})
        elif arms:
            property_schema["anyOf"] = arms
    return {name: value for name, value in definition.items() if name != "title"}
