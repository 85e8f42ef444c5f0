"""Files that outlive a run: one JSON document each, with a schema, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file

RecordT = TypeVar("RecordT", bound="Record")


class Record(BaseModel):
    """A persisted document: frozen, unknown keys are errors, the same rules on reading and on writing."""

    # built when one is first read or written: a word needs few of them
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, so that equal values have equal hashes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def write_record(path: Path, record: Record) -> None:
    """Replace `path` by `record`, atomically and durably; it is validated as a reader would first."""
    document = record.model_dump(mode="json", by_alias=True)
    type(record).model_validate(document)
    write_file(path, (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_record(path: Path, record_type: type[RecordT]) -> RecordT | None:
    """The record in `path`, or None if there is no such file; PreconditionError if it is not what it must be."""
    try:
        return record_type.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(str(part) for part in problem["loc"]) or "document"
        raise PreconditionError(
            f"{path}: not a valid {record_type.__name__} ({location}: {problem['type']})",
            hint="it was edited, or written by another version; delete it and repeat the word that made it",
        ) from error
