"""Build stages as checks, all in one parallel bake, and collect their logs and the files that they produce."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.checks.stages.build_log import BuildLog, read_cause
from lyra_tasks.checks.stages.plan import PlannedStage
from lyra_tasks.engine.bases.materials import build_prerequisites, read_secret_lines
from lyra_tasks.engine.buildx.bake import bake_targets
from lyra_tasks.engine.buildx.contexts import escape_bake_definition
from lyra_tasks.errors import BuildError, LyraError, StaleError
from lyra_tasks.files import display_path, walk_directory
from lyra_tasks.records.evidence import CheckDetail, create_check_detail

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

STAGE_LOG = "build.log"
RESULTS_DIRECTORY = "results"
MAX_RESULTS_BYTES = 16 * 1024**2
_BAKE_DIRECTORY_PREFIX = ".bake-"


@dataclass(frozen=True)
class StageBuild:
    """A stage to build as a check; its log and its results are written to `directory`."""

    name: str
    stage: PlannedStage
    directory: Path
    timeout: float


@dataclass(frozen=True)
class StageOutcome:
    """The result of a stage: a problem or an empty string, and what the program printed before it failed.

    `error` is why it could not be built at all.
    """

    problem: str = ""
    seconds: float = 0.0
    details: tuple[CheckDetail, ...] = ()
    error: LyraError | None = None


@dataclass
class _Bake:
    """One bake of some stages, by the names of their targets, and how it ended."""

    builds: Mapping[str, StageBuild]
    seconds: float = 0.0
    has_timed_out: bool = False
    error: LyraError | None = None
    log: BuildLog = field(default_factory=lambda: BuildLog(()))


def build_stages(
    lab: Lab, builds: Sequence[StageBuild], *, stops_at_failure: bool = False, lock_handles: tuple[int, ...] = ()
) -> dict[str, StageOutcome]:
    """Build stages in one bake and return their outcomes by name.

    A failure cancels the bake, so that the stages which it does not blame are built again, each for itself: what they
    have done comes from the build cache. With `stops_at_failure` they are not, and have no outcome. Locks with these
    handles are held until the last bake has ended.
    """
    for build in builds:
        shutil.rmtree(build.directory, ignore_errors=True)
        build.directory.mkdir(parents=True)
    bake = _run_bake(lab, builds, lock_handles)
    outcomes = _collect_outcomes(lab, bake)
    remaining = [build for build in builds if build.name not in outcomes]
    if remaining and not (stops_at_failure and outcomes):
        with ThreadPoolExecutor(min(len(remaining), os.cpu_count() or 1)) as pool:
            for outcome in pool.map(partial(_build_alone, lab, lock_handles), remaining):
                outcomes |= outcome
    return outcomes


def _build_alone(lab: Lab, lock_handles: tuple[int, ...], build: StageBuild) -> dict[str, StageOutcome]:
    return _collect_outcomes(lab, _run_bake(lab, [build], lock_handles))


def _run_bake(lab: Lab, builds: Sequence[StageBuild], lock_handles: tuple[int, ...]) -> _Bake:
    """Build stages until one fails or the shortest of their time limits has passed."""
    bake = _Bake({f"stage-{number}": build for number, build in enumerate(builds, start=1)})
    bake.log = BuildLog(bake.builds.keys())
    directory = lab.run_directory / f"{_BAKE_DIRECTORY_PREFIX}{builds[0].directory.name}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    started, timeout = time.monotonic(), min(build.timeout for build in builds)
    try:
        _bake(lab, bake, directory, timeout, lock_handles)
    except StaleError:  # the files changed under the checks: their results would say nothing about them
        raise
    except LyraError as error:
        bake.error = error
    finally:
        bake.seconds = time.monotonic() - started
        _split_log(bake, directory / STAGE_LOG)
        shutil.rmtree(directory, ignore_errors=True)
    lab.cancellation.raise_if_cancelled()
    bake.has_timed_out = bake.error is not None and bake.seconds >= timeout
    return bake


def _bake(lab: Lab, bake: _Bake, directory: Path, timeout: float, lock_handles: tuple[int, ...]) -> None:
    stages = {target: build.stage for target, build in bake.builds.items()}
    first = next(iter(stages.values()))
    base_targets = {name: base for stage in stages.values() for name, base in stage.base_targets.items()}
    prerequisites = {name: tag for stage in stages.values() for name, tag in stage.prerequisites.items()}
    targets: dict[str, Any] = {**base_targets, **{name: dict(stage.target) for name, stage in stages.items()}}
    definition = directory / "bake.json"
    definition.write_text(escape_bake_definition(json.dumps({"target": targets}, indent=2, sort_keys=True) + "\n"))
    secret_paths = dict.fromkeys(path for stage in stages.values() for path in stage.secret_paths)
    snapshots = {
        key: snapshot for stage in stages.values() if stage.sources for key, snapshot in stage.sources.snapshots.items()
    }

    def run_bake(names: tuple[str, ...]) -> None:
        bake_targets(
            lab.engine,
            definition,
            metadata=directory / "metadata.json",
            log=directory / STAGE_LOG,
            epoch=first.epoch,
            redacted_values=(*read_secret_lines(secret_paths), *first.secret_values),
            targets=names,
            cancel_hook=partial(lab.cancellation.on_cancel, timeout=timeout),
            quiet=True,
            lock_handles=lock_handles,
            sources=replace(first.sources, snapshots=snapshots) if first.sources else None,
        )

    build_prerequisites(lab.engine, lab.owner, prerequisites, run_bake)
    run_bake(tuple(stages))


def _split_log(bake: _Bake, path: Path) -> None:
    """Write a log for each stage with its own lines and those that are about all of them."""
    if not path.is_file():
        return
    with ExitStack() as stack:
        logs = {
            target: stack.enter_context((build.directory / STAGE_LOG).open("a", encoding="utf-8"))
            for target, build in bake.builds.items()
        }
        lines = stack.enter_context(path.open(encoding="utf-8", newline="\n"))
        last_lines: dict[str, str] = {}
        for target, line in bake.log.read(line.removesuffix("\n") for line in lines):
            for name in (target,) if target else logs:
                if line or last_lines.get(name):  # of the empty lines between the lines of others, keep one
                    logs[name].write(f"{line}\n")
                last_lines[name] = line


def _collect_outcomes(lab: Lab, bake: _Bake) -> dict[str, StageOutcome]:
    """Return the outcomes that a bake has decided, by the names of the stages."""
    if bake.error is None:
        return {build.name: _finish_stage(build, bake.seconds) for build in bake.builds.values()}
    if len(bake.builds) == 1 or not isinstance(bake.error, BuildError):
        blamed = set(bake.builds)
    elif bake.has_timed_out:
        blamed = {
            target for target in bake.log.find_unfinished_targets() if bake.builds[target].timeout <= bake.seconds
        }
    else:
        blamed = bake.log.find_failed_targets()
    for target, build in bake.builds.items():
        _remove_export(build.stage)
        if target not in blamed:
            (build.directory / STAGE_LOG).unlink(missing_ok=True)
    return {bake.builds[target].name: _describe_failure(lab, bake, target, bake.error) for target in sorted(blamed)}


def _describe_failure(lab: Lab, bake: _Bake, target: str, error: LyraError) -> StageOutcome:
    build = bake.builds[target]
    seconds = round(bake.seconds, 3)
    if not isinstance(error, BuildError):
        return StageOutcome(seconds=seconds, error=error)
    problem = f"not built within {build.timeout:g} s" if bake.has_timed_out else read_cause(error.message)
    lines, count = bake.log.find_output(target)
    log = (build.directory / STAGE_LOG).relative_to(lab.run_directory).as_posix()
    title = "the program printed" if count <= len(lines) else f"the last {len(lines)} of {count} lines of the program"
    details = (create_check_detail(title, lines, log),) if lines else ()
    if not lines:
        problem = f"{problem}\nwhole log: {display_path(build.directory / STAGE_LOG)}"
    return StageOutcome(problem, seconds, details)


def _finish_stage(build: StageBuild, seconds: float) -> StageOutcome:
    try:
        problem = _copy_results(build.stage.export_directory, build.directory / RESULTS_DIRECTORY)
    finally:
        _remove_export(build.stage)
    return StageOutcome(problem, round(seconds, 3))


def _remove_export(stage: PlannedStage) -> None:
    if stage.export_directory is not None:
        shutil.rmtree(stage.export_directory, ignore_errors=True)


def _copy_results(export_directory: Path | None, results_directory: Path) -> str:
    """Copy the regular files of a stage that produces results; return the problem, or an empty string."""
    if export_directory is None:
        return ""
    files = list(_list_files(export_directory))
    unsupported = [
        name for name, path in files if not stat.S_ISREG(path.lstat().st_mode) or console.sanitize(name) != name
    ]
    if unsupported:
        return f"{unsupported[0]!r}: not a regular file with a printable name"
    size = sum(path.stat().st_size for _, path in files)
    if size > MAX_RESULTS_BYTES:
        return f"results too large: {console.format_bytes(size)}, limit {console.format_bytes(MAX_RESULTS_BYTES)}"
    if not files:
        return "the stage produced no files"
    for name, path in files:
        target = results_directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return ""


def _list_files(root: Path) -> Iterator[tuple[str, Path]]:
    for directory, subdirectories, names in walk_directory(root):
        links = [name for name in subdirectories if (directory / name).is_symlink()]
        for name in sorted((*names, *links)):
            path = directory / name
            yield path.relative_to(root).as_posix(), path
