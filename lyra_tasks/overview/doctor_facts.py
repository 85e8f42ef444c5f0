"""What `doctor` looks at, found out; what cannot be is a finding, too, and no reason to stop."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lyra_tasks.config.discovery import display_path
from lyra_tasks.config.load import LoadedConfig, load_config
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME
from lyra_tasks.dockerfile.lock_file import read_lock_file as read_lock
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx.bake import read_buildx_version
from lyra_tasks.engine.client.connect import Engine, connect_running_engine, read_component_versions, read_engine_time
from lyra_tasks.engine.objects.inventory import list_objects
from lyra_tasks.engine.objects.lifeline import list_crashed_runs
from lyra_tasks.engine.objects.ownership import build_ownership_index, load_ownership_index
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.locks import active_runs
from lyra_tasks.overview.doctor import Disk, DoctorFacts, SandboxFacts
from lyra_tasks.paths import Paths, project_paths
from lyra_tasks.records.checkouts import list_other_checkouts, merge_journals
from lyra_tasks.records.journal import Journal
from lyra_tasks.versions.git import collect_git_facts

if TYPE_CHECKING:
    from lyra_tasks.config.models import Configuration

T = TypeVar("T")


def collect_doctor_facts() -> DoctorFacts:
    """The facts about the project around the working directory, or about this machine alone if there is none."""
    loaded = _catch_error(load_config)
    config, paths = _project_or_default(loaded)
    engine = _catch_error(lambda: connect_running_engine(config, paths))
    facts = DoctorFacts(
        config=loaded if isinstance(loaded, LyraError) else f"{display_path(loaded.file)}: {config.project.name}",
        engine=engine.facts if isinstance(engine, Engine) else engine,
        disks=tuple(_writable_disks(paths)),
        now=time.time(),
        sandbox=_sandbox_facts(config, paths),
        crashed_runs=tuple(list_crashed_runs(paths.state)),
        active_runs=active_runs(paths.run_locks),
        lock_error=_error_of(lambda: read_lock(paths.root / LOCK_FILE_NAME)),
        journal_problems=tuple(Journal(paths.journal).find_problems()),
    )
    if isinstance(engine, Engine):
        facts = _add_engine_facts(facts, engine, paths)
    return _add_git_facts(facts, paths.root, config)


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


def _error_of(function: Callable[[], object]) -> LyraError | None:
    result = _catch_error(function)
    return result if isinstance(result, LyraError) else None


def _writable_disks(paths: Paths) -> list[Disk]:
    """The file systems that are written to, each once."""
    disks: dict[int, Disk] = {}
    for path in (paths.root, paths.state, paths.cache, Path("/var/lib/docker")):
        directory = next(candidate for candidate in (path, *path.parents) if candidate.is_dir())
        if path == directory or path != Path("/var/lib/docker"):
            stats = os.statvfs(directory)
            disks.setdefault(
                directory.stat().st_dev,
                Disk(str(directory), stats.f_bavail * stats.f_frsize, stats.f_favail, stats.f_files),
            )
    return list(disks.values())


def _sandbox_facts(config: Configuration, paths: Paths) -> SandboxFacts:
    try:
        running = sandbox.find_sandbox(paths.state) is not None
    except LyraError as error:
        return SandboxFacts(config.engine.sandbox, has_crashed=True, obstacle=error.message)
    missing_tools = [tool for tool in ("apt-get", "dpkg", "unshare") if shutil.which(tool) is None]
    obstacle = "this is not root" if os.geteuid() else f"there is no {missing_tools[0]}" if missing_tools else ""
    return SandboxFacts(
        config.engine.sandbox,
        is_running=running,
        has_crashed=not running and sandbox.has_sandbox_record(paths.state),
        obstacle=obstacle,
    )


def _add_engine_facts(facts: DoctorFacts, engine: Engine, paths: Paths) -> DoctorFacts:
    objects = _catch_error(lambda: list_objects(engine))
    existing = () if isinstance(objects, LyraError) else objects
    ownership = load_ownership_index(paths, engine.facts.id)
    own_objects = [claim for engine_object in existing if (claim := ownership.match(engine_object)) is not None]
    orphans: dict[str, tuple[str, ...]] = {}
    for checkout_states in list_other_checkouts(paths):
        if checkout_states[0].is_missing:
            their_ownership = build_ownership_index(
                merge_journals(checkout_state.journal for checkout_state in checkout_states), engine.facts.id
            )
            names = tuple(
                f"{engine_object.kind} {engine_object.name}"
                for engine_object in existing
                if their_ownership.match(engine_object) is not None
            )
            names += (
                ("a private engine",)
                if any(sandbox.has_sandbox_data(checkout_state.state) for checkout_state in checkout_states)
                else ()
            )
            orphans |= {str(checkout_states[0].root): names} if names else {}
    versions = _catch_error(lambda: read_component_versions(engine))
    return replace(
        facts,
        components={} if isinstance(versions, LyraError) else versions,
        buildx=_catch_error(lambda: read_buildx_version(engine)),
        engine_time=_parse_timestamp(_catch_error(lambda: read_engine_time(engine))),
        leftovers=tuple(claim.name for claim in own_objects if claim.run in facts.crashed_runs),
        orphans=orphans,
    )


def _parse_timestamp(text: str | LyraError) -> float | None:
    """The engine writes nanoseconds, which Python does not read before 3.11 and no clock here has."""
    try:
        return None if isinstance(text, LyraError) else datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _add_git_facts(facts: DoctorFacts, root: Path, config: Configuration) -> DoctorFacts:
    outputs = (config.promotion.directory, ".lyra")
    git = _catch_error(lambda: collect_git_facts(root, config.release.tag, outputs=outputs))
    if isinstance(git, LyraError):
        return replace(facts, git=git)
    state = f"{len(git.changed_paths)} change(s)" if git.is_dirty else "clean"
    return replace(
        facts, git=f"{git.branch or 'detached HEAD'} at {git.short_commit}, {state}", commit_time=git.commit_time
    )
