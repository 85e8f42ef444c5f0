"""Turn results into the JSON documents that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


def to_document(result: object) -> Any:
    """Return what `--json` prints for a result: only dicts, lists, texts, numbers, booleans and None."""
    if is_dataclass(result):
        return {field.name: to_document(getattr(result, field.name)) for field in fields(result)}
    if hasattr(result, "model_dump"):  # a record that Lyra reads back from disk is a pydantic model
        return result.model_dump(mode="json", by_alias=True)
    if isinstance(result, Mapping):
        return {str(key): to_document(value) for key, value in result.items()}
    if isinstance(result, (tuple, list)):
        return [to_document(item) for item in result]
    return result
