"""The report of a cleanup: what existed before and after, and what is left with the command that removes it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from lyra_tasks.cleanup.plan import foreign_use
from lyra_tasks.engine.objects.disk_usage import DiskUsage
from lyra_tasks.engine.objects.host_footprint import HostFootprint
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import EngineUnavailableError, LeftoverError, NoSpaceError, is_disk_full
from lyra_tasks.records.cleanup import CLEANUP_FILE_NAME, CleanupReport, HostSnapshot, Leftover
from lyra_tasks.records.record import write_record

_REMOVE_COMMANDS = {
    CONTAINER: "docker rm --force --volumes",
    NETWORK: "docker network rm",
    VOLUME: "docker volume rm",
    IMAGE: "docker rmi",
}


def save_report(report: CleanupReport, work: Workspace) -> Path | None:
    """Save the report in the run directory, or in the state directory if `.lyra/` is removed or its disk is full.

    Returns None if both disks are full: a cleanup for want of space must not fail for want of space.
    """
    directories: list[Callable[[], Path]] = [lambda: work.run_directory, lambda: work.paths.state]
    for get_directory in directories[1:] if report.level == "all" else directories:
        try:
            file = get_directory() / CLEANUP_FILE_NAME
            write_record(file, report)
        except NoSpaceError:
            continue
        except OSError as error:
            if not is_disk_full(error):
                raise
        else:
            return file
    return None


def require_clean(report: CleanupReport) -> None:
    """Raise LeftoverError, with each leftover and the command that removes it, if a cleanup left anything.

    Raises EngineUnavailableError if nothing is left where it looked, but an engine that may hold objects was not asked.
    """
    unasked = tuple(
        f"engine {item.engine} ({item.endpoint}): {item.reason}; {item.objects} object(s) of this project stand in the "
        f"journal for it; {item.fix}"
        for item in report.not_asked
    )
    if report.leftovers:
        raise LeftoverError(
            f"{len(report.leftovers)} leftover(s) of this project could not be removed",
            hint="Remove them with the listed commands, then run `clean` again",
            details=(
                *(f"{item.kind} {item.name}: {item.reason}; {item.fix}" for item in report.leftovers),
                *unasked,
            ),
        )
    if unasked:
        raise EngineUnavailableError(
            f"{len(unasked)} engine(s) that hold objects of this project could not be asked",
            hint=report.not_asked[0].fix,
            details=unasked,
        )


def take_snapshot(
    engine_objects: Iterable[EngineObject],
    disk_usage: DiskUsage | None,
    footprint: HostFootprint,
    temporary_files: Iterable[Path],
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
        not_seen=list(footprint.not_seen),
    )


def find_removed_by_others(
    before: Iterable[EngineObject], after: Iterable[EngineObject], removed: Iterable[OwnedObject]
) -> list[str]:
    """Return the objects, by kind and name, that somebody else removed meanwhile."""
    present = {(item.kind, item.name) for item in after} | {(item.kind, item.name) for item in removed}
    return sorted(f"{kind} {name}" for kind, name in {(item.kind, item.name) for item in before} - present)


def describe_leftover(item: OwnedObject, user: str | None, reason: str) -> Leftover:
    """Return the record of an object that is left; `user` is the container of somebody else that uses it."""
    command = f"{_REMOVE_COMMANDS[item.kind]} {shlex.quote(item.id if item.kind == CONTAINER else item.name)}"
    if user is None:
        return Leftover(kind=item.kind, name=item.name, reason=reason or "the engine still lists it", fix=command)
    return Leftover(kind=item.kind, name=item.name, reason=foreign_use(user), fix=f"stop {user}, then {command}")


def list_path_leftovers(kind: str, paths: Iterable[str | Path]) -> list[Leftover]:
    """Return the records of files or directories that still exist, which this user could not remove."""
    remove = "rm -r" if os.geteuid() == 0 else "sudo rm -r"
    return [
        Leftover(kind=kind, name=str(path), reason="still exists", fix=f"{remove} {shlex.quote(str(path))}")
        for path in paths
    ]
