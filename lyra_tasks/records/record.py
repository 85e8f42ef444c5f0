"""Base class of persisted documents, and how they are read and written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lyra_tasks.documents import DocumentError, parse_json_object, read_document, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_json

_MAX_RECORD_BYTES = 256 * 1024**2  # an entry per file of a large source tree
_HINT = "Delete it (it was edited, or written by another version) and rerun the command that wrote it"

# repeating a class of all letters up to a limit would take 20 MiB
DirectoryName = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
"""The name of a directory that Lyra made beside the record that names it."""
RecordT = TypeVar("RecordT", bound="Record")


class Record(BaseModel):
    """A persisted JSON document; unknown keys are errors, on reading and on writing."""

    # building the validators is deferred, since a command needs few of them
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


def dump_record(record: Record) -> dict[str, Any]:
    """Return the document of a record, after validating it as a reader would."""
    document = record.model_dump(mode="json", by_alias=True)
    type(record).model_validate(document)
    return document


def write_record(path: Path, record: Record) -> None:
    """Replace `path` by a record, atomically and durably, after validating it as a reader would."""
    write_json(path, dump_record(record))


def read_record(path: Path, record_type: type[RecordT]) -> RecordT | None:
    """Read a record; None if the file does not exist, PreconditionError if it is not a valid record of this type."""
    try:
        data = read_document(path, _MAX_RECORD_BYTES)
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise PreconditionError(f"{path}: {error}", hint=_HINT) from error
    with translate_failures(
        lambda problem: PreconditionError(f"{path}: not a valid {record_type.__name__} ({problem})", hint=_HINT)
    ):
        return record_type.model_validate_json(data)


def has_other_schema(path: Path, record_type: type[Record]) -> bool:
    """Return whether a file is a document of another version of this type, which an update left."""
    try:
        schema = parse_json_object(read_document(path)).get("schema")
    except (OSError, DocumentError):
        return False
    current = str(record_type.model_fields["schema_"].default)
    return isinstance(schema, str) and schema != current and schema.partition("/")[0] == current.partition("/")[0]


def read_valid_record(path: Path, record_type: type[RecordT]) -> RecordT | None:
    """Read a record that can be made again; None if the file does not exist or is not valid."""
    with suppress(PreconditionError):
        return read_record(path, record_type)
    return None
