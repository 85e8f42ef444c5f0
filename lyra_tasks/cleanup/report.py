"""Build the report of a cleanup: what existed before and after, what was removed, what is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from lyra_tasks.cleanup.plan import foreign_use
from lyra_tasks.engine.objects.disk_usage import DiskUsage
from lyra_tasks.engine.objects.host_footprint import HostFootprint
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.errors import LeftoverError
from lyra_tasks.records.cleanup import CleanupReport, HostSnapshot, Leftover

_REMOVE_COMMANDS = {
    CONTAINER: "docker rm --force --volumes",
    NETWORK: "docker network rm",
    VOLUME: "docker volume rm",
    IMAGE: "docker rmi",
}


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
    """Raise LeftoverError, with each leftover and the command that removes it, if a cleanup left anything."""
    if report.leftovers:
        raise LeftoverError(
            f"{len(report.leftovers)} leftover(s) of this project could not be removed",
            hint="Remove them with the listed commands, then run `clean` again",
            details=tuple(f"{item.kind} {item.name}: {item.reason}; {item.fix}" for item in report.leftovers),
        )


def find_removed_by_others(
    before: Iterable[EngineObject], after: Iterable[EngineObject], removed: Iterable[OwnedObject]
) -> list[str]:
    """Return the objects, by kind and name, that somebody else removed meanwhile."""
    present = {(item.kind, item.name) for item in after} | {(item.kind, item.name) for item in removed}
    return sorted(f"{kind} {name}" for kind, name in {(item.kind, item.name) for item in before} - present)
