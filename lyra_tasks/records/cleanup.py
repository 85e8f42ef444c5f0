"""The report of a cleanup: state before and after, objects removed and leftovers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lyra_tasks.records.record import Record

CLEANUP_FILE_NAME = "cleanup.json"


class RecordedObject(Record):
    """An object created by Lyra, and its run."""

    kind: str
    name: str
    id: str
    run: str


class KeptObject(RecordedObject):
    """An object that was kept on purpose."""

    reason: str


class Leftover(Record):
    """A leftover that could not be removed, with the command that removes it."""

    kind: str
    name: str
    reason: str
    fix: str


class UnaskedEngineRecord(Record):
    """An engine that may still hold objects of the project, since it could not be asked, with the fix."""

    engine: str
    endpoint: str
    reason: str
    objects: int = Field(description="that stand in the journal for it")
    fix: str


class DeletedState(Record):
    """A state directory that was deleted because its checkout (`root`) is missing."""

    root: str
    state: str


class HostSnapshot(Record):
    """All objects in the engine and the traces of this checkout outside of it; sizes in bytes."""

    containers: dict[str, str] = Field(default={}, description="id -> name")
    networks: dict[str, str] = Field(default={}, description="id -> name")
    volumes: list[str] = Field(default=[])
    images: dict[str, str] = Field(default={}, description="reference -> id")
    layers_size: int = Field(default=0, description="as reported by the engine")
    cache_size: int = Field(default=0, description="of the build cache, as reported by the engine")
    builders: list[str] = Field(default=[], description="named Buildx builders")
    temporary_files: list[str] = Field(default=[])
    processes: dict[int, str] = Field(default={})
    mounts: list[str] = Field(default=[])
    interfaces: list[str] = Field(default=[])
    not_seen: list[str] = Field(default=[], description="kinds that this system does not show")


class CleanupReport(Record):
    """The result of `clean`, written to the run's directory."""

    schema_: Literal["lyra.cleanup/1"] = Field(default="lyra.cleanup/1", alias="schema")
    run: str
    level: Literal["objects", "cache", "all", "gone"]
    started_at: str
    seconds: float
    engine: dict[str, str] | None = Field(description="id and version; None without an engine")
    before: HostSnapshot
    after: HostSnapshot
    removed: list[RecordedObject]
    kept: list[KeptObject]
    leftovers: list[Leftover]
    not_asked: list[UnaskedEngineRecord] = Field(default=[], description="engines that may hold objects")
    removed_by_others: list[str] = Field(description="objects not created by Lyra that vanished in the meantime")
    sandbox_stopped: bool
    deleted_states: list[DeletedState] = Field(default=[], description="of missing checkouts")
    clean: bool
