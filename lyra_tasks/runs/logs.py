"""Find, read, follow and print the logs of a run: of tests from their files, of a development lab from the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.engine.objects.lifeline import run_lock_path
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.lab.container_logs import LogLine, follow_container_logs, merge_lines, read_container_logs
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.records.evidence import LOGS_DIRECTORY, list_service_logs
from lyra_tasks.records.service_logs import LogFileReader, LogReader
from lyra_tasks.units import parse_duration

_POLL_INTERVAL_S = 0.2
_MAX_RUNS = 5


@dataclass(frozen=True)
class LogSource:
    """The source of a run's logs: its log directory, or the containers of the development lab."""

    run: str
    directory: Path
    services: tuple[str, ...]
    lab: DevLab | None


def find_log_source(work: Workspace, run: str, services: Sequence[str]) -> LogSource:
    """Return the logs of `run` (default: of the development lab, else of the last run with logs)."""
    runs = work.paths.runs
    lab = DevStore(work.paths.state).read()
    if lab is not None and run in {"", lab.run}:
        return LogSource(lab.run, runs / lab.run / LOGS_DIRECTORY, _select_services(lab.services, services), lab)
    run = run or find_last_logged_run(runs)
    directory = runs / run / LOGS_DIRECTORY
    if not run or not directory.is_dir():
        known = ", ".join(_list_logged_runs(runs)[-_MAX_RUNS:])
        hint = f"Runs with logs: {known}" if known else "Run `test` or `create` first"
        raise PreconditionError(f"No logs of run {run}" if run else "No logs of any run", hint=hint)
    return LogSource(run, directory, _select_services(_list_logged_services(directory), services), None)


def find_last_logged_run(runs: Path) -> str:
    """Return the last run with logs, or ''."""
    return max(_list_logged_runs(runs), default="")


def read_logs(work: Workspace, source: LogSource, since: str) -> Iterator[LogLine]:
    """Yield all lines by time; `since` is a duration such as `10m`, or ''."""
    start = _start_timestamp(since)
    if source.lab is not None:
        lines = read_container_logs(work, source.lab, source.services)
    else:
        lines = merge_lines(_read_log_file(name, reader) for name, reader in _open_readers(source).items())
    return (line for line in lines if line.timestamp >= start)


def follow_logs(work: Workspace, source: LogSource, since: str) -> Iterator[LogLine]:
    """Yield lines as they are written, until the run has ended."""
    start = _start_timestamp(since)
    if source.lab is not None:
        yield from follow_container_logs(work, source.lab, source.services, after=start)
    else:
        yield from _follow_files(work, source, start)


def print_log_lines(lines: Iterable[LogLine], source: LogSource) -> None:
    """Print each line with its time, and with its service if there are several."""
    has_several_services = len(source.services) > 1
    width = max((len(name) for name in source.services), default=0)
    for line in lines:
        name = f"{line.service.ljust(width)} | " if has_several_services else ""
        console.print_verbatim(f"{line.timestamp[:23].rstrip('Z')} {name}{line.text}")


def _follow_files(work: Workspace, source: LogSource, start: str) -> Iterator[LogLine]:
    """Yield new lines of the log files of another process's test run, until its lock is released."""
    lock = run_lock_path(work.paths.state, source.run)
    readers = _open_readers(source)
    while True:
        is_running = lock.exists()
        lines = merge_lines(_read_log_file(name, reader) for name, reader in readers.items())
        yield from (line for line in lines if line.timestamp >= start)
        if not is_running:
            return
        time.sleep(_POLL_INTERVAL_S)


def _open_readers(source: LogSource) -> dict[str, LogReader]:
    return {name: LogFileReader(source.directory / f"{name}.log") for name in source.services}


def _read_log_file(name: str, read_lines: LogReader) -> Iterator[LogLine]:
    """Yield the new complete lines of a service's log file."""
    for line in read_lines():
        timestamp, _, rest = line.partition(" ")
        yield LogLine(timestamp, name, rest.partition(" ")[2])


def _start_timestamp(since: str) -> str:
    if not since:
        return ""
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(f"Invalid --since {since!r}: not a duration", hint='For example "10m" or "90s"') from error
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _select_services(available: Iterable[str], requested: Sequence[str]) -> tuple[str, ...]:
    names = tuple(sorted(available))
    for name in requested:
        if not any(_is_service(log_name, name) for log_name in names):
            raise UsageError(f"No log of service {name!r}", hint=f"Services with logs: {', '.join(names) or 'none'}")
    return tuple(name for name in names if not requested or any(_is_service(name, service) for service in requested))


def _is_service(log_name: str, service: str) -> bool:
    """Return whether a log is that of `service`, in whichever group."""
    return service in {log_name, log_name.rpartition("/")[2]}


def _list_logged_services(directory: Path) -> list[str]:
    """Return the services with a log, as GROUP/SERVICE if the test has groups."""
    return [path.relative_to(directory).with_suffix("").as_posix() for path in list_service_logs(directory)]


def _list_logged_runs(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob(f"*/{LOGS_DIRECTORY}") if _list_logged_services(path))
