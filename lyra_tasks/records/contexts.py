"""Records of what builders hold of the build contexts of a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.digests import sha256_hex
from lyra_tasks.locks import file_lock
from lyra_tasks.records.record import Record, read_valid_record, write_record

_LOCK_TIMEOUT_S = 60.0


class SentContext(Record):
    """What a builder may hold of a context under one name."""

    generation: str = Field(description="the end of the name under which the builder keeps its copy")
    pending: dict[str, str] = Field(description="build that has not ended, or was killed -> stamp of its snapshot")
    files: dict[str, dict[str, str]] = Field(
        description="hash of the path -> size and time of change -> digest of the content"
    )


class SentContexts(Record):
    """What one builder may hold of the contexts of a checkout."""

    schema_: Literal["lyra.sent-contexts/1"] = Field(default="lyra.sent-contexts/1", alias="schema")
    contexts: dict[str, SentContext]


class SentContextStore:
    """The records of one builder, changed by one process at a time."""

    def __init__(self, state: Path, builder: str) -> None:
        self._path = state / "contexts" / f"{sha256_hex(builder.encode())[:16]}.json"

    @contextmanager
    def edit(self) -> Iterator[dict[str, SentContext]]:
        """Yield the records by context, to be changed in place; a lost or damaged file has none."""
        with file_lock(
            self._path.with_suffix(".lock"), resource="the record of build contexts", timeout=_LOCK_TIMEOUT_S
        ):
            record = read_valid_record(self._path, SentContexts)
            contexts = dict(record.contexts) if record is not None else {}
            before = dict(contexts)
            yield contexts
            if contexts != before:
                write_record(self._path, SentContexts(contexts=contexts))
