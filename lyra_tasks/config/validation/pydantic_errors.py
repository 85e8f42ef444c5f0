"""Convert pydantic's validation errors to problems, and drop invalid values so that the rest can be validated."""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, describe_value, quote_text, toml_type_name
from lyra_tasks.config.values import (  # fmt: skip
    ENVIRONMENT_NAME_PATTERN,
    GROUP_NAME_PATTERN,
    HOST_NAME_PATTERN,
    REFERENCE_PATTERN,
    SYSCTL_NAME_PATTERN,
    UDP_PATTERN,
    ULIMIT_NAME_PATTERN,
)
from lyra_tasks.suggest import closest_match

_EXPECTED_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
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
PATTERN_DESCRIPTIONS = {
    r"^[a-z0-9][a-z0-9._-]{0,62}$": (
        "a valid name",
        'lower-case letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 63 characters',
    ),
    r"^[A-Za-z_][A-Za-z0-9_]*$": ("a valid variable name", 'letters, digits and "_", not beginning with a digit'),
    ENVIRONMENT_NAME_PATTERN: ("the name of a variable", 'one or more characters without "=" and spaces'),
    r"^/[^:\x00-\x1f]*[^/:\x00-\x1f]$": (
        "a path in a container",
        'an absolute path without ":", not ending in "/", such as "/data"',
    ),
    r"^[^\x00-\x1f]+$": ("a path in the project", "a path without control characters, such as dockerfiles/web"),
    r"^[0-9]{1,7}:[0-9]{1,7}$": ("an owner", '"UID:GID" in numbers, such as "10001:10001"'),
    r"^[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?$": ("a platform", '"OS/ARCHITECTURE", such as "linux/amd64"'),
    r"^[0-9]{1,5}\.[0-9]{1,5}(\.[0-9]{1,5})?$": ("an engine version", 'numbers, such as "20.10"'),
    r"^[a-z]+$": ("a suite", 'lower-case letters, such as "bookworm"'),
    r"^[a-z0-9][a-z0-9+.-]+$": ("the name of a Debian package", 'lower-case letters, digits, "+", "." and "-"'),
    r"^([a-z0-9][a-z0-9_-]{0,30})?$": ("a group", 'lower-case letters, digits, "-" and "_", at most 31'),
    UDP_PATTERN: ("a port", 'a number from 1 to 65535, or one with "/udp", such as "53/udp"'),
    REFERENCE_PATTERN: (
        "an image reference",
        'a name in lower case, with a registry, a tag and a digest if needed, such as "redis:7"',
    ),
    HOST_NAME_PATTERN: (
        "a host name",
        'letters, digits, ".", "_" and "-", beginning and ending with a letter or digit, at most 63 characters',
    ),
    GROUP_NAME_PATTERN: ("a group", 'the name or number of a group, such as "video" or "44"'),
    SYSCTL_NAME_PATTERN: ("a kernel parameter", 'its name in quotes, such as "net.core.somaxconn"'),
    ULIMIT_NAME_PATTERN: (
        "a resource limit",
        ULIMIT_NAME_PATTERN.removeprefix("^(").removesuffix(")$").replace("|", ", "),
    ),
    r"^[A-Z_]+$": ("a capability", 'capital letters and "_", such as "NET_BIND_SERVICE"'),
}
"""Name and description of the allowed values, for each pattern of the models."""
_RENAMED_SERVICE_KEYS = {"external": "image"}


def convert_validation_error(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """Return one problem per location of the document, with the branches of a union combined."""
    details_by_location: dict[Location, list[ErrorDetails]] = defaultdict(list)
    for detail in error.errors(include_url=False):
        details_by_location[_locate(detail, document)].append(detail)
    renamed = {(*location[:-1], name) for location in details_by_location if (name := _find_new_name(location))}
    details_by_location = {
        location: details for location, details in details_by_location.items() if location not in renamed
    }
    # A list with an invalid item is reported for the item only, even if its key also accepts a string
    parents = {location[:end] for location in details_by_location for end in range(len(location))}
    return [
        Problem(location, _format_message(location, details, document))
        for location, details in details_by_location.items()
        if location not in parents or not all(map(_is_other_form, details))
    ]


def _is_other_form(detail: ErrorDetails) -> bool:
    """Return whether the value has another form than one of those that its key accepts."""
    return detail["type"] in _EXPECTED_TYPES or (
        detail["type"] == "literal_error" and isinstance(detail["input"], list | dict)
    )


def known_keys(location: Location) -> list[str]:
    """Return the keys of the table at a location, or an empty list if the user chooses them."""
    annotation: Any = Configuration
    for part in location:
        model, is_collection = find_model(annotation)
        if model is None:
            return []
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        annotation = model if is_collection else fields.get(str(part))
    model, is_collection = find_model(annotation)
    return [] if model is None or is_collection else [f.alias or name for name, f in model.model_fields.items()]


def find_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model of the table in an annotation, and whether it is a list or table of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return find_model(arguments[0])
    if get_origin(annotation) in (list, dict):
        return find_model(arguments[-1])[0], True
    if get_origin(annotation) in (Union, types.UnionType):
        return next((result for argument in arguments if (result := find_model(argument))[0]), (None, False))
    return None, False


def value_at(location: Sequence[str | int], document: Any) -> Any:
    """Return the document's value at a location, or None."""
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _locate(detail: ErrorDetails, document: Mapping[str, Any]) -> Location:
    """Return the location without what pydantic adds: names of union branches, and `[key]`."""
    location: Location = ()
    value: Any = document
    for part in detail["loc"]:
        is_inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if is_inside:
            location, value = (*location, part), value[part]
    return (*location, detail["loc"][-1]) if detail["type"] == "missing" else location


def _format_message(location: Location, details: list[ErrorDetails], document: Mapping[str, Any]) -> str:
    detail = next((candidate for candidate in details if candidate["type"] not in _EXPECTED_TYPES), details[0])
    kind, context, value = detail["type"], detail.get("ctx", {}), value_at(location, document)
    if kind in _EXPECTED_TYPES:
        expected = " or ".join(dict.fromkeys(_EXPECTED_TYPES[item["type"]] for item in details))
        return f"must be {expected}, found {toml_type_name(value)}"
    if kind == "missing":
        return "missing; write schema = 1" if location == ("schema",) else "missing; it is required"
    if kind == "extra_forbidden":
        return _describe_unknown_key(location)
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").split(", ")
        allowed = " or ".join(quote_text(choice.strip("'")) for choice in choices)
        return f"must be {allowed}, found {describe_value(location, value)}"
    if kind in _BOUNDS:
        bound, phrase = _BOUNDS[kind]
        return f"must be {phrase} {context[bound]:g}, found {describe_value(location, value)}"
    if kind == "string_pattern_mismatch":
        subject = quote_text(str(location[-1])) if detail["loc"][-1] == "[key]" else describe_value(location, value)
        noun, allowed = PATTERN_DESCRIPTIONS[context["pattern"]]
        return f"{subject} is not {noun}; allowed: {allowed}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "finite_number":
        return "must be a finite number"
    return f"{describe_value(location, value)} {context.get('error', 'is not valid here')}"


def _find_new_name(location: Location) -> str:
    """Return the present name of a key that had the name at this location before, or an empty text."""
    is_service_key = len(location) == 3 and location[0] == "services"
    return _RENAMED_SERVICE_KEYS.get(str(location[-1]), "") if is_service_key else ""


def _describe_unknown_key(location: Location) -> str:
    if new_name := _find_new_name(location):
        return f"`{location[-1]}` is now `{new_name}`; rename it"
    known = known_keys(location[:-1])
    prefix = "unknown table" if len(location) == 1 else "unknown key"
    suggestion = closest_match(str(location[-1]).lower().replace("-", "_"), known)
    return f"{prefix}; did you mean {quote_text(suggestion)}?" if suggestion else f"{prefix}; known: {', '.join(known)}"


def drop_invalid(document: dict[str, Any], problems: Iterable[Problem]) -> None:
    """Remove invalid values and incomplete tables, and put placeholders for required keys."""
    # All locations first: what is removed for one problem must not look missing to the next
    for location in [_removable_location(document, problem.location) for problem in problems]:
        *parents, key = location
        table = value_at(parents, document)
        if location[0] == "tests" and len(location) > 1:
            # Keep its place in the list, since the index identifies a test
            index = int(location[1])
            test = table if isinstance(table, dict) else {}
            test.pop(key, None)
            document["tests"][index] = {"name": f"test {index}", **test}
        elif isinstance(table, dict):
            value = table.pop(key, None)
            if new_name := _find_new_name(location):
                table.setdefault(new_name, value)
    document.setdefault("schema", 1)
    document.setdefault("project", {}).setdefault("name", "unknown")


def is_caused_by(problem: Problem, earlier: Iterable[Problem]) -> bool:
    """Return whether a problem may be the consequence of an earlier one at the same or the related location."""
    locations = [problem.location, problem.related_location] if problem.related_location else [problem.location]
    return any(_overlaps(location, other.location) for other in earlier for location in locations)


def _overlaps(first: Location, second: Location) -> bool:
    length = min(len(first), len(second))
    return first[:length] == second[:length]


def _removable_location(document: dict[str, Any], location: Location) -> Location:
    """Return the location whose removal makes the rest valid: tests stay in their list, other lists go entirely."""
    if location[0] == "tests":
        return location[:3]
    end = next((index for index, part in enumerate(location) if isinstance(part, int)), len(location))
    is_present = location[end - 1] in (value_at(location[: end - 1], document) or {})
    return location[:end] if is_present or end == 1 else location[: end - 1]
