"""`.lyra.toml` for editors (JSON Schema) and for readers (one row per key): both are read off the models."""

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
from lyra_tasks.config.units import format_duration, format_size, parse_duration, parse_size

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LETTERS = {"bases": "B", "images": "I", "services": "S"}


class Key(NamedTuple):
    """One key as the documentation lists it; `default` is as it would be written, empty where there is none."""

    table: str
    name: str
    required: bool
    default: str
    description: str


def schema() -> dict[str, Any]:
    """The JSON Schema of `.lyra.toml`: sizes and durations as the strings that users write."""
    document: dict[str, Any] = _plain(Configuration.model_json_schema(), Configuration)
    for name, definition in document["$defs"].items():
        document["$defs"][name] = _plain(definition, _MODELS[name])
    return {"$schema": DIALECT, **document, "title": ".lyra.toml of lyra-tasks"}


def keys() -> Iterator[Key]:
    """Every key, table by table, in the order of the documentation."""
    yield from _keys(Configuration, "")


def _keys(model: type[BaseModel], table: str) -> Iterator[Key]:
    below: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner, many = _model_in(field.annotation)
        if inner is not None:
            place = f"{table}.{key}" if table else key
            listed = get_origin(field.annotation) is list
            letter = _LETTERS.get(key, "X") if many and not listed else ""
            below.append((inner, f"[[{place}]]" if listed else f"{place}.{letter}" if letter else place))
        if inner is None or (table and not many):
            yield Key(table, key, field.is_required(), _default(field), _texts(model).get(name, ""))
    for inner, place in below:
        yield from _keys(inner, place)


@cache
def _texts(model: type[BaseModel]) -> Mapping[str, str]:
    """The text under each field of a table: read here alone, since every word loads the models and few show it."""
    found: dict[str, str] = {}
    for each in reversed([each for each in model.__mro__ if each.__module__.startswith("lyra_tasks.")]):
        (definition,) = ast.parse(inspect.getsource(each)).body
        for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name] = " ".join(said.split())
    return found


def _default(field: FieldInfo) -> str:
    """A default as it is written in TOML; nothing for one that says no more than that the key is not given."""
    value = field.get_default(call_default_factory=True)
    if field.is_required() or isinstance(value, BaseModel) or value in (None, "", [], {}):
        return ""
    return json.dumps(_written(field, value))


def _written(field: FieldInfo, value: Any) -> Any:
    if _is(field, parse_size):
        return format_size(value)
    return format_duration(value) if _is(field, parse_duration) else value


def _is(field: FieldInfo, parser: object) -> bool:
    """Whether a key's values are read by this parser."""
    arms = [Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation]
    while arms:
        arm = arms.pop()
        if get_origin(arm) is Annotated:
            inner, *metadata = get_args(arm)
            if any(isinstance(each, BeforeValidator) and each.func is parser for each in metadata):
                return True
            arms.append(inner)
        elif get_origin(arm) in (Union, types.UnionType):
            arms += get_args(arm)
    return False


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The table that a key holds, and whether it holds several of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    arms = get_args(annotation)
    if get_origin(annotation) in (list, dict):
        return _model_in(arms[-1])[0], True
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arm in arms if (found := _model_in(arm))[0] is not None), (None, False))
    return None, False


def _all_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        inner, _ = _model_in(field.annotation)
        if inner is not None:
            yield from _all_models(inner)


_MODELS: Mapping[str, type[BaseModel]] = {model.__name__: model for model in _all_models(Configuration)}


def _plain(definition: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A table's schema as TOML has it: no null, no invented titles, defaults as they are written."""
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    for key, described in definition["properties"].items():
        described.pop("title", None)
        described.pop("default", None)
        if default := _default(model.model_fields[names[key]]):
            described["default"] = json.loads(default)
        described["description"] = _texts(model).get(names[key], "")
        if "patternProperties" in described:
            described["additionalProperties"] = False
        arms = [arm for arm in described.get("anyOf", []) if arm.get("type") != "null"]
        if len(arms) == 1:
            described.pop("anyOf")
            described.update({name: value for name, value in arms[0].items() if name not in described})
        elif arms:
            described["anyOf"] = arms
    return {name: value for name, value in definition.items() if name != "title"}
