"""The proof of a cleaning: what there was before and after, what was removed, and what is left and why."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lyra_tasks.records.record import Record

CLEANUP_FILE_NAME = "cleanup.json"


class RecordedObject(Record):
    """An object of ours, and the run that made it."""

    kind: str
    name: str
    id: str
    run: str


class KeptObject(RecordedObject):
    """An object of ours that was left alone on purpose, and why."""

    reason: str


class Leftover(Record):
    """Something of ours that could not be removed, why, and what removes it."""

    kind: str
    name: str
    reason: str
    fix: str


class DeletedState(Record):
    """A state folder that was deleted since its checkout is gone: where that was."""

    root: str
    state: str


class HostSnapshot(Record):
    """All that the engine holds, whoever made it, and what this checkout has outside of it; sizes in bytes."""

    containers: dict[str, str] = Field(default={}, description="id -> name")
    networks: dict[str, str] = Field(default={}, description="id -> name")
    volumes: list[str] = Field(default=[])
    images: dict[str, str] = Field(default={}, description="reference -> id")
    layers_size: int = Field(default=0, description="as the engine says")
    cache_size: int = Field(default=0, description="of the builder cache, as the engine says")
    builders: list[str] = Field(default=[], description="named builders that Buildx knows")
    temporary_files: list[str] = Field(default=[])
    processes: dict[int, str] = Field(default={})
    mounts: list[str] = Field(default=[])
    interfaces: list[str] = Field(default=[])


class CleanupReport(Record):
    """What one `clean` did, for the run's folder."""

    schema_: Literal["lyra.cleanup/1"] = Field(default="lyra.cleanup/1", alias="schema")
    run: str
    level: Literal["objects", "cache", "all", "gone"]
    started_at: str
    seconds: float
    engine: dict[str, str] | None = Field(description="id and version; None if there was none to clean")
    before: HostSnapshot
    after: HostSnapshot
    removed: list[RecordedObject]
    kept: list[KeptObject]
    leftovers: list[Leftover]
    removed_by_others: list[str] = Field(
        description="objects that are not ours and went meanwhile, by somebody else's hand"
    )
    sandbox_stopped: bool
    deleted_states: list[DeletedState] = Field(default=[], description="of checkouts that are gone")
    clean: bool
