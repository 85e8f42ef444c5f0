"""The parts of a cleaning's proof, and what is said of residue."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lyra_tasks.cleanup.plan import CleanupPlan
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
    """A cleaning when it begins: what is known then, for the proof at its end."""

    run: str
    level: Literal["objects", "cache", "all", "gone"]
    engine: Engine | None
    engine_objects: tuple[EngineObject, ...]
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def build_report(
        self,
        before: HostSnapshot,
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
        """The proof, where the engine holds `things` at the end; nothing is clean while a `live` run goes on."""
        facts = self.engine.facts if self.engine is not None else None
        return CleanupReport(
            run=self.run,
            level=self.level,
            started_at=self.started_at,
            seconds=round(time.monotonic() - self.started, 3),
            engine={"id": facts.id, "version": facts.version} if facts else None,
            before=before,
            after=after,
            removed=to_items(removed),
            kept=list(kept),
            leftovers=list(leftovers),
            removed_by_others=removed_by_others(self.engine_objects, engine_objects, removed),
            sandbox_stopped=stopped,
            deleted_states=list(deleted_states),
            clean=not leftovers and not has_live_runs,
        )


def take_snapshot(
    engine_objects: Iterable[EngineObject],
    disk_usage: DiskUsage | None,
    footprint: HostFootprint,
    temporary_files: Iterable[Path],
) -> HostSnapshot:
    """What there is at one moment, as it is recorded."""
    by_kind: dict[str, dict[str, str]] = {CONTAINER: {}, NETWORK: {}, VOLUME: {}, IMAGE: {}}
    for engine_object in engine_objects:
        by_kind[engine_object.kind] |= (
            {engine_object.name: engine_object.id}
            if engine_object.kind == IMAGE
            else {engine_object.id: engine_object.name}
        )
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


def to_items(objects: Iterable[OwnedObject]) -> list[RecordedObject]:
    """Objects as they are recorded."""
    return [RecordedObject(kind=item.kind, name=item.name, id=item.id, run=item.run) for item in objects]


def list_kept_objects(plan: CleanupPlan) -> list[KeptObject]:
    """What is ours and stays on purpose."""
    reasons = {item: why for item, why in plan.kept_objects.items() if item not in plan.used_by_others}
    return [
        KeptObject(kind=item.kind, name=item.name, id=item.id, run=item.run, reason=why)
        for item, why in reasons.items()
    ]


def removed_by_others(
    before: Iterable[EngineObject], after: Iterable[EngineObject], removed: Iterable[OwnedObject]
) -> list[str]:
    """What went meanwhile without having been removed by this cleaning."""
    missing = {(engine_object.kind, engine_object.name) for engine_object in before} - {
        (engine_object.kind, engine_object.name) for engine_object in after
    }
    return sorted(f"{kind} {name}" for kind, name in missing - {(item.kind, item.name) for item in removed})


def describe_leftover(item: OwnedObject, user: str | None, reason: str) -> Leftover:
    """An object that is left: why, and what removes it."""
    command = f"{_REMOVE_COMMANDS[item.kind]} {item.id if item.kind == CONTAINER else item.name}"
    if user is None:
        return Leftover(kind=item.kind, name=item.name, reason=reason or "the engine still lists it", fix=command)
    why = f"the container {user} uses it, which is not ours"
    return Leftover(kind=item.kind, name=item.name, reason=why, fix=f"end {user}, then {command}")


def delete_directory(directory: Path) -> list[Leftover]:
    """Delete a folder; what of it is left."""
    shutil.rmtree(directory, ignore_errors=True)
    if not directory.exists():
        return []
    return [Leftover(kind="folder", name=str(directory), reason="still there", fix=f"rm -r {directory}")]


def require_clean(report: CleanupReport) -> None:
    """ResidueError naming everything that is left, and what removes it."""
    if report.leftovers:
        raise LeftoverError(
            f"{len(report.leftovers)} thing(s) of this project are left",
            hint="remove them as it is said, then run `clean` again",
            details=tuple(
                f"{leftover.kind} {leftover.name}: {leftover.reason}; {leftover.fix}" for leftover in report.leftovers
            ),
        )
