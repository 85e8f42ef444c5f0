"""Collect what `doctor` diagnoses; an error while collecting is a fact too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lyra_tasks import console
from lyra_tasks.cleanup.storage import measure_cures, measure_storage
from lyra_tasks.config.load import LoadedConfig, load_config
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, read_lock_file
from lyra_tasks.engine.buildx.bake import read_buildx_version
from lyra_tasks.engine.client.connect import Engine, connect_running_engine, read_component_versions, read_engine_time
from lyra_tasks.engine.client.credentials import find_missing_helpers
from lyra_tasks.engine.objects.inventory import EngineObject, list_objects
from lyra_tasks.engine.objects.known_engines import find_unasked_engines
from lyra_tasks.engine.objects.lifeline import list_crashed_runs
from lyra_tasks.engine.objects.ownership import build_ownership_index, load_ownership_index
from lyra_tasks.engine.sandbox import (
    find_obstacle,
    find_sandbox,
    find_stray_sandbox,
    has_sandbox_data,
    has_sandbox_record,
    list_stray_sandboxes,
)
from lyra_tasks.engine.sandbox.layout import SandboxPaths, read_sandbox_record
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.files import display_path
from lyra_tasks.locks import active_runs
from lyra_tasks.overview.doctor import Disk, DoctorFacts, SandboxFacts, diagnose_disk, is_low
from lyra_tasks.paths import Paths, project_paths
from lyra_tasks.processes import list_ignored_variables
from lyra_tasks.records.checkouts import list_other_checkouts, merge_journals
from lyra_tasks.records.journal import Journal
from lyra_tasks.versions.git import collect_git_facts

if TYPE_CHECKING:
    from lyra_tasks.config.models import Configuration

T = TypeVar("T")


def collect_doctor_facts() -> DoctorFacts:
    """Collect the facts about this machine, and about the project around the working directory if there is one."""
    loaded = _catch_error(load_config)
    config, paths = _project_or_default(loaded)
    engine = _catch_error(lambda: connect_running_engine(config, paths))
    lock = _catch_error(lambda: read_lock_file(paths.root / LOCK_FILE_NAME))
    facts = DoctorFacts(
        config=loaded if isinstance(loaded, LyraError) else f"{display_path(loaded.file)}: {config.project.name}",
        engine=engine.facts if isinstance(engine, Engine) else engine,
        disks=tuple(_writable_disks(paths)),
        now=time.time(),
        sandbox=_sandbox_facts(config, paths),
        crashed_runs=tuple(list_crashed_runs(paths.state)),
        unasked_engines=find_unasked_engines(paths, engine if isinstance(engine, Engine) else None),
        active_runs=active_runs(paths.run_locks),
        ignored_variables=tuple(list_ignored_variables()),
        credential_errors=_list_credential_errors(),
        lock_error=lock if isinstance(lock, LyraError) else None,
        journal_problems=tuple(Journal(paths.journal).find_problems()),
    )
    if isinstance(engine, Engine):
        facts = _add_engine_facts(facts, engine, paths)
    else:
        facts = replace(facts, orphans=_find_orphans(paths, "", ()))
    if isinstance(loaded, LoadedConfig):
        facts = _add_storage(facts, open_workspace(loaded), engine if isinstance(engine, Engine) else None)
    return _add_git_facts(facts, paths.root, config)


def _add_storage(facts: DoctorFacts, work: Workspace, engine: Engine | None) -> DoctorFacts:
    storage = _catch_error(lambda: measure_storage(work, engine, with_caches=True))
    return replace(
        facts,
        storage=() if isinstance(storage, LyraError) else storage,
        cures={disk.path: _find_cures(work, engine, disk) for disk in facts.disks if is_low(disk)},
    )


def _find_cures(work: Workspace, engine: Engine | None, disk: Disk) -> tuple[tuple[str, int], ...]:
    cures = _catch_error(lambda: measure_cures(work, engine, Path(disk.path)))
    return () if isinstance(cures, LyraError) else cures


def _project_or_default(loaded: LoadedConfig | LyraError) -> tuple[Configuration, Paths]:
    from lyra_tasks.config.models import Configuration

    if isinstance(loaded, LoadedConfig):
        return loaded.config, project_paths(loaded.root, loaded.config.project.name)
    empty = Configuration.model_validate({"schema": 1, "project": {"name": "none"}})
    return empty, project_paths(Path.cwd(), "none")


def _catch_error(function: Callable[[], T]) -> T | LyraError:
    try:
        return function()
    except LyraError as error:
        return error
    except OSError as error:
        return PreconditionError(f"{error.filename or 'this machine'}: {error.strerror or error}")


def _list_credential_errors() -> tuple[LyraError, ...]:
    errors = _catch_error(find_missing_helpers)
    return (errors,) if isinstance(errors, LyraError) else tuple(errors)


def warn_about_low_disks(work: Workspace) -> None:
    """Warn of each disk that is full, or soon will be, with what frees most."""
    if low_disks := [disk for disk in _writable_disks(work.paths) if is_low(disk)]:
        engine = _catch_error(lambda: connect_running_engine(work.config, work.paths))
        for disk in low_disks:
            diagnosis = diagnose_disk(disk, _find_cures(work, engine if isinstance(engine, Engine) else None, disk))
            console.warn(f"Little space left in {diagnosis.message}. {diagnosis.fix}")


def _writable_disks(paths: Paths) -> list[Disk]:
    """Return the file systems that Lyra and Docker write to, each once."""
    disks: dict[int, Disk] = {}
    for path in (paths.root, paths.state, paths.cache, Path("/var/lib/docker")):
        directory = next(candidate for candidate in (path, *path.parents) if candidate.is_dir())
        if path == directory or path != Path("/var/lib/docker"):
            stats = os.statvfs(directory)
            disk = Disk(str(directory), stats.f_bavail * stats.f_frsize, stats.f_favail, stats.f_files)
            disks.setdefault(directory.stat().st_dev, disk)
    return list(disks.values())


def _sandbox_facts(config: Configuration, paths: Paths) -> SandboxFacts:
    try:
        is_running, stray = find_sandbox(paths.state) is not None, find_stray_sandbox(paths.state)
    except LyraError as error:
        return SandboxFacts(config.engine.sandbox, has_crashed=True, obstacle=error.message)
    return SandboxFacts(
        config.engine.sandbox,
        is_running=is_running,
        stray=stray.description if stray is not None else "",
        other_strays={
            other.pid: other.description for other in list_stray_sandboxes() if other.state != paths.state.resolve()
        },
        has_crashed=not is_running and has_sandbox_record(paths.state),
        obstacle=find_obstacle(),
        limits=_describe_sandbox_limits(paths) if is_running else "",
    )


def _describe_sandbox_limits(paths: Paths) -> str:
    record = read_sandbox_record(SandboxPaths(paths.state))
    if record is None or record.memory is None or record.cpus is None:
        return ""
    return f"{console.format_count(record.cpus, 'CPU')} and {console.format_bytes(record.memory)}"


def _add_engine_facts(facts: DoctorFacts, engine: Engine, paths: Paths) -> DoctorFacts:
    listed = _catch_error(lambda: list_objects(engine))
    objects = () if isinstance(listed, LyraError) else listed
    ownership = load_ownership_index(paths, engine.facts.id)
    own_objects = [owned for engine_object in objects if (owned := ownership.match(engine_object)) is not None]
    versions = _catch_error(lambda: read_component_versions(engine))
    return replace(
        facts,
        components={} if isinstance(versions, LyraError) else versions,
        buildx=_catch_error(lambda: read_buildx_version(engine)),
        engine_skew_s=_measure_skew(engine),
        host_address=None if engine.shares_files else engine.host_address,
        leftovers=tuple(owned.name for owned in own_objects if owned.run in facts.crashed_runs),
        unknown_objects=tuple(
            f"{item.kind} {item.name}"
            for item in objects
            if item.project == paths.project_id and ownership.match(item) is None
        ),
        orphans=_find_orphans(paths, engine.facts.id, objects),
    )


def _find_orphans(paths: Paths, engine_id: str, objects: Iterable[EngineObject]) -> dict[str, tuple[str, ...]]:
    """Return what missing checkouts left in this engine, if there is one, and their private engines."""
    orphans: dict[str, tuple[str, ...]] = {}
    for states in list_other_checkouts(paths):
        if not states[0].is_missing:
            continue
        ownership = build_ownership_index(merge_journals(state.journal for state in states), engine_id)
        theirs = [engine_object for engine_object in objects if ownership.match(engine_object) is not None]
        names = [f"{engine_object.kind} {engine_object.name}" for engine_object in theirs]
        if any(has_sandbox_data(state.state) for state in states):
            running = any(find_sandbox(state.state) is not None for state in states)
            names.append("private engine, which runs" if running else "private engine")
        if names:
            orphans[str(states[0].root)] = tuple(names)
    return orphans


def _measure_skew(engine: Engine) -> float | None:
    """Return by how much the engine's clock is ahead, at least: its answer is from a moment between two of ours."""
    before = time.time()
    answer = _catch_error(lambda: read_engine_time(engine))
    after = time.time()
    try:
        engine_time = None if isinstance(answer, LyraError) else datetime.fromisoformat(answer).timestamp()
    except ValueError:
        return None
    if engine_time is None:
        return None
    return min(engine_time - before, 0.0) or max(engine_time - after, 0.0)


def _add_git_facts(facts: DoctorFacts, root: Path, config: Configuration) -> DoctorFacts:
    outputs = (config.promotion.directory, ".lyra")
    git = _catch_error(lambda: collect_git_facts(root, config.release.tag, outputs=outputs))
    if isinstance(git, LyraError):
        return replace(facts, git=git)
    state = f"{len(git.changed_paths)} change(s)" if git.is_dirty else "clean"
    return replace(
        facts, git=f"{git.branch or 'detached HEAD'} at {git.short_commit}, {state}", commit_time=git.commit_time
    )
