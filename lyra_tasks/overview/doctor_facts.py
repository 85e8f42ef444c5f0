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

from lyra_tasks.config.find import shown
from lyra_tasks.config.git import git_facts
from lyra_tasks.config.load import Loaded, load
from lyra_tasks.config.lock import LOCK_NAME
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx import buildx_version
from lyra_tasks.engine.claims import claims_of
from lyra_tasks.engine.connect import Engine, components, connect_running, engine_time
from lyra_tasks.engine.guard import crashed_runs
from lyra_tasks.engine.ownership import claimed_by
from lyra_tasks.engine.things import everything
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.overview.doctor import Disk, Facts, SandboxFacts
from lyra_tasks.records.checkouts import history, others
from lyra_tasks.records.journal import Journal
from lyra_tasks.run import Paths, live_runs, paths_of

if TYPE_CHECKING:
    from lyra_tasks.config.models import Configuration

T = TypeVar("T")


def gather() -> Facts:
    """The facts about the project around the working directory, or about this machine alone if there is none."""
    loaded = _tried(load)
    config, paths = _project(loaded)
    engine = _tried(lambda: connect_running(config, paths))
    facts = Facts(
        config=loaded if isinstance(loaded, LyraError) else f"{shown(loaded.file)}: {config.project.name}",
        engine=engine.facts if isinstance(engine, Engine) else engine,
        disks=tuple(_disks(paths)),
        now=time.time(),
        sandbox=_sandbox(config, paths),
        crashed=tuple(crashed_runs(paths.state)),
        live=live_runs(paths.live),
        pins=_error(lambda: read_lock(paths.root / LOCK_NAME)),
        journal=tuple(Journal(paths.journal).problems()),
    )
    if isinstance(engine, Engine):
        facts = _of_engine(facts, engine, paths)
    return _of_git(facts, paths.root, config)


def _project(loaded: Loaded | LyraError) -> tuple[Configuration, Paths]:
    from lyra_tasks.config.models import Configuration

    if isinstance(loaded, Loaded):
        return loaded.config, paths_of(loaded.root, loaded.config.project.name)
    empty = Configuration.model_validate({"schema": 1, "project": {"name": "none"}})
    return empty, paths_of(Path.cwd(), "none")


def _tried(call: Callable[[], T]) -> T | LyraError:
    try:
        return call()
    except LyraError as error:
        return error
    except OSError as error:
        return PreconditionError(f"{error.filename or 'this machine'}: {error.strerror or error}")


def _error(call: Callable[[], object]) -> LyraError | None:
    found = _tried(call)
    return found if isinstance(found, LyraError) else None


def _disks(paths: Paths) -> list[Disk]:
    """The file systems that are written to, each once."""
    found: dict[int, Disk] = {}
    for place in (paths.root, paths.state, paths.cache, Path("/var/lib/docker")):
        folder = next(each for each in (place, *place.parents) if each.is_dir())
        if place == folder or place != Path("/var/lib/docker"):
            seen = os.statvfs(folder)
            found.setdefault(
                folder.stat().st_dev, Disk(str(folder), seen.f_bavail * seen.f_frsize, seen.f_favail, seen.f_files)
            )
    return list(found.values())


def _sandbox(config: Configuration, paths: Paths) -> SandboxFacts:
    try:
        running = sandbox.find(paths.state) is not None
    except LyraError as error:
        return SandboxFacts(config.engine.sandbox, crashed=True, obstacle=error.message)
    missing = [tool for tool in ("apt-get", "dpkg", "unshare") if shutil.which(tool) is None]
    obstacle = "this is not root" if os.geteuid() else f"there is no {missing[0]}" if missing else ""
    return SandboxFacts(
        config.engine.sandbox,
        running=running,
        crashed=not running and sandbox.is_recorded(paths.state),
        obstacle=obstacle,
    )


def _of_engine(facts: Facts, engine: Engine, paths: Paths) -> Facts:
    things = _tried(lambda: everything(engine))
    held = () if isinstance(things, LyraError) else things
    mine = claimed_by(paths, engine.facts.id)
    owned = [each for thing in held if (each := mine.of(thing)) is not None]
    orphans: dict[str, tuple[str, ...]] = {}
    for other in others(paths):
        if other[0].is_gone:
            theirs = claims_of(history(each.journal for each in other), engine.facts.id)
            names = tuple(f"{each.kind} {each.name}" for each in held if theirs.of(each) is not None)
            names += ("a private engine",) if any(sandbox.has_data(each.state) for each in other) else ()
            orphans |= {str(other[0].root): names} if names else {}
    versions = _tried(lambda: components(engine))
    return replace(
        facts,
        components={} if isinstance(versions, LyraError) else versions,
        buildx=_tried(lambda: buildx_version(engine)),
        engine_time=_seconds(_tried(lambda: engine_time(engine))),
        left=tuple(each.name for each in owned if each.run in facts.crashed),
        orphans=orphans,
    )


def _seconds(said: str | LyraError) -> float | None:
    """The engine writes nanoseconds, which Python does not read before 3.11 and no clock here has."""
    try:
        return None if isinstance(said, LyraError) else datetime.fromisoformat(said).timestamp()
    except ValueError:
        return None


def _of_git(facts: Facts, root: Path, config: Configuration) -> Facts:
    outputs = (config.promotion.directory, ".lyra")
    found = _tried(lambda: git_facts(root, config.release.tag, outputs=outputs))
    if isinstance(found, LyraError):
        return replace(facts, git=found)
    state = f"{len(found.changed)} change(s)" if found.dirty else "clean"
    return replace(facts, git=f"{found.branch or 'detached HEAD'} at {found.short}, {state}", commit_time=found.time)
