"""Build the report of a cleanup: what existed before and after, what was removed, what is left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lyra_tasks.cleanup.plan import CleanupPlan, foreign_use
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.disk_usage import DiskUsage
from lyra_tasks.engine.objects.host_footprint import HostFootprint
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.errors import LeftoverError
from lyra_tasks.records.cleanup import CleanupReport, DeletedState, HostSnapshot, KeptObject, Leftover, RecordedObject

_REMOVE_COMMANDS = {
    CONTAINER: "docker rm --force --volumes",
    NETWORK: "docker network rm",
    VOLUME: "docker volume rm",
    IMAGE: "docker rmi",
}


@dataclass(frozen=True)
class StateBefore:
    """The state at the start of a cleanup, for the report at its end."""

    run: str
    level: Literal["objects", "cache", "all", "gone"]
    engine: Engine | None
    engine_objects: tuple[EngineObject, ...]
    snapshot: HostSnapshot
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def build_report(
        self,
        after: HostSnapshot,
        engine_objects: Iterable[EngineObject],
        *,
        removed: Sequence[OwnedObject],
        kept: Sequence[KeptObject],
        leftovers: Sequence[Leftover],
        stopped: bool,
        has_live_runs: bool = False,
        deleted_states: Sequence[DeletedState] = (),
    ) -> CleanupReport:
        """Return the report; `engine_objects` are those left in the engine. With live runs, it is never clean."""
        facts = self.engine.facts if self.engine is not None else None
        return CleanupReport(
            run=self.run,
            level=self.level,
            started_at=self.started_at,
            seconds=round(time.monotonic() - self.started, 3),
            engine={"id": facts.id, "version": facts.version} if facts else None,
            before=self.snapshot,
            after=after,
            removed=[RecordedObject(kind=item.kind, name=item.name, id=item.id, run=item.run) for item in removed],
            kept=list(kept),
            leftovers=list(leftovers),
            removed_by_others=_find_removed_by_others(self.engine_objects, engine_objects, removed),
            sandbox_stopped=stopped,
            deleted_states=list(deleted_states),
            clean=not leftovers and not has_live_runs,
        )


def take_snapshot(
    engine_objects: Iterable[EngineObject],
    disk_usage: DiskUsage | None,
    footprint: HostFootprint,
    temporary_files: Iterable[Path] = (),
) -> HostSnapshot:
    """Return the record of what exists at one moment."""
    by_kind: dict[str, dict[str, str]] = {CONTAINER: {}, NETWORK: {}, VOLUME: {}, IMAGE: {}}
    for item in engine_objects:
        by_kind[item.kind] |= {item.name: item.id} if item.kind == IMAGE else {item.id: item.name}
    return HostSnapshot(
        containers=by_kind[CONTAINER],
        networks=by_kind[NETWORK],
        volumes=sorted(by_kind[VOLUME]),
        images=by_kind[IMAGE],
        layers_size=disk_usage.layers_size if disk_usage else 0,
        cache_size=disk_usage.cache_size if disk_usage else 0,
        builders=list(footprint.builders),
        temporary_files=[str(path) for path in temporary_files],
        processes=footprint.processes,
        mounts=list(footprint.mounts),
        interfaces=list(footprint.interfaces),
    )


def list_kept_objects(plan: CleanupPlan) -> list[KeptObject]:
    """Return our objects that a plan keeps on purpose."""
    return [
        KeptObject(kind=item.kind, name=item.name, id=item.id, run=item.run, reason=reason)
        for item, reason in plan.kept_objects.items()
        if item not in plan.used_by_others
    ]


def describe_leftover(item: OwnedObject, user: str | None, reason: str) -> Leftover:
    """Return the record of an object that is left; `user` is the container of somebody else that uses it."""
    command = f"{_REMOVE_COMMANDS[item.kind]} {item.id if item.kind == CONTAINER else item.name}"
    if user is None:
        return Leftover(kind=item.kind, name=item.name, reason=reason or "the engine still lists it", fix=command)
    return Leftover(kind=item.kind, name=item.name, reason=foreign_use(user), fix=f"stop {user}, then {command}")


def path_leftovers(kind: str, paths: Iterable[str | Path]) -> list[Leftover]:
    """Return the records of files or directories that still exist."""
    return [Leftover(kind=kind, name=str(path), reason="still exists", fix=f"rm -r {path}") for path in paths]


def delete_directory(directory: Path) -> list[Leftover]:
    """Delete a directory and return what is left of it."""
    shutil.rmtree(directory, ignore_errors=True)
    return path_leftovers("directory", [directory]) if directory.exists() else []


def require_clean(report: CleanupReport) -> None:
    """Check that a cleanup left nothing.

    Raises:
        LeftoverError: with each leftover and the command that removes it.
    """
    if report.leftovers:
        raise LeftoverError(
            f"{len(report.leftovers)} leftover(s) of this project could not be removed",
            hint="Remove them with the listed commands, then run `clean` again",
            details=tuple(f"{item.kind} {item.name}: {item.reason}; {item.fix}" for item in report.leftovers),
        )


def _find_removed_by_others(
    before: Iterable[EngineObject], after: Iterable[EngineObject], removed: Iterable[OwnedObject]
) -> list[str]:
    present = {(item.kind, item.name) for item in after} | {(item.kind, item.name) for item in removed}
    return sorted(f"{kind} {name}" for kind, name in {(item.kind, item.name) for item in before} - present)
