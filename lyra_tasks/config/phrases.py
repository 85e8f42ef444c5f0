"""Pydantic's findings in plain words: what is wrong with a value, and what is allowed in its place."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem, kind_of, quoted, shown
from lyra_tasks.config.values import UDP_PATTERN

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "date_type": "a date without quotes, such as 2027-03-31",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,62}$": (
        "a valid name",
        'lower-case letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 63 characters',
    ),
    r"^[A-Za-z_][A-Za-z0-9_]*$": ("a valid variable name", 'letters, digits and "_", not beginning with a digit'),
    r"^/[^:\x00-\x1f]*[^/:\x00-\x1f]$": (
        "a path in a container",
        'an absolute path without ":", not ending in "/", such as "/data"',
    ),
    r"^[^\x00-\x1f]+$": ("a path in the project", "a path without control characters, such as dockerfiles/web"),
    r"^[0-9]{1,7}:[0-9]{1,7}$": ("an owner", '"UID:GID" in numbers, such as "10001:10001"'),
    r"^[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?$": ("a platform", '"OS/ARCHITECTURE", such as "linux/amd64"'),
    r"^[0-9]+\.[0-9]+(\.[0-9]+)?$": ("an engine version", 'numbers, such as "20.10"'),
    r"^[a-z]+$": ("a suite", 'lower-case letters, such as "bookworm"'),
    r"^[a-z0-9][a-z0-9+.-]+$": ("the name of a Debian package", 'lower-case letters, digits, "+", "." and "-"'),
    r"^([a-z0-9][a-z0-9_-]{0,30})?$": ("a group", 'lower-case letters, digits, "-" and "_", at most 31'),
    UDP_PATTERN: ("a port", 'a number from 1 to 65535, or one with "/udp", such as "53/udp"'),
    r"^[A-Z_]+$": ("a capability", 'capital letters and "_", such as "NET_BIND_SERVICE"'),
}
"""What a value must look like, by the pattern in `models.py`: a noun, and what is allowed."""


def problems_of(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """One problem per place of the document; the branches of a union are told as one."""
    found: dict[Location, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_place(detail, document), []).append(detail)
    # A list that is wrong inside is not "not a string" as well, only because its key also takes a string.
    outer = {place[:end] for place in found for end in range(len(place))}
    return [
        Problem(place, _phrase(place, details, document))
        for place, details in found.items()
        if place not in outer or any(detail["type"] not in _EXPECTED for detail in details)
    ]


def known_keys(location: Location) -> list[str]:
    """The keys that the table at `location` may have, or none where the user chooses them."""
    annotation: Any = Configuration
    for part in location:
        model = _inner(annotation, BaseModel)
        if model is not None:
            fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
            annotation = fields.get(str(part))
        else:
            values = get_args(_inner(annotation, list if isinstance(part, int) else dict))
            annotation = values[-1] if values else None
    model = _inner(annotation, BaseModel)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def value_at(location: Sequence[str | int], document: Any) -> Any:
    """What the document holds at a location; None where it holds nothing."""
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _inner(annotation: Any, wanted: type) -> Any:
    """The part of an annotation that is `wanted` or a kind of it, inside Annotated and unions; None without one."""
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0], wanted)
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arm in get_args(annotation) if (found := _inner(arm, wanted)) is not None), None)
    bare = get_origin(annotation) or annotation
    return annotation if isinstance(bare, type) and issubclass(bare, wanted) else None


def _place(detail: ErrorDetails, document: Mapping[str, Any]) -> Location:
    """The location without what pydantic adds to it: the names of a union's branches, and `[key]`."""
    place: Location = ()
    value: Any = document
    for part in detail["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if inside:
            place, value = (*place, part), value[part]
    return (*place, detail["loc"][-1]) if detail["type"] == "missing" else place


def _phrase(place: Location, details: list[ErrorDetails], document: Mapping[str, Any]) -> str:
    detail = next((detail for detail in details if detail["type"] not in _EXPECTED), details[0])
    kind, context, value = detail["type"], detail.get("ctx", {}), value_at(place, document)
    if kind in _EXPECTED:
        expected = " or ".join(dict.fromkeys(_EXPECTED[each["type"]] for each in details))
        return f"must be {expected}, found {kind_of(value)}"
    if kind == "missing":
        return "missing; write schema = 1" if place == ("schema",) else "missing; it must be given"
    if kind == "extra_forbidden":
        return unknown_key(place)
    if kind == "literal_error":
        allowed = " or ".join(
            quoted(choice.strip("'")) for choice in context["expected"].replace(" or ", ", ").split(", ")
        )
        return f"must be {allowed}, found {shown(place, value)}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"must be {words} {context[bound]:g}, found {shown(place, value)}"
    if kind == "string_pattern_mismatch":
        what = quoted(str(place[-1])) if detail["loc"][-1] == "[key]" else shown(place, value)
        noun, allowed = PATTERNS[context["pattern"]]
        return f"{what} is not {noun}; allowed: {allowed}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "value_error":
        return f"{shown(place, value)} {context['error']}"
    return f"{shown(place, value)} is not valid here"


def unknown_key(place: Location) -> str:
    """What to say about a key that no table of this kind has: the nearest one that it has, or all of them."""
    known = known_keys(place[:-1])
    written = str(place[-1])
    what = "unknown table" if len(place) == 1 else "unknown key"
    nearest = difflib.get_close_matches(written.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if nearest:
        return f"{what}; did you mean {quoted(nearest[0])}?"
    return f"{what}; known here: {', '.join(known)}"
