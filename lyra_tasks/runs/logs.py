"""What containers printed: of past and running tests out of their files, of a development lab out of the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from lyra_tasks import console
from lyra_tasks.checks.results import merge_logs
from lyra_tasks.engine.client.monitoring import read_environment_values, read_lines_below, read_log_lines
from lyra_tasks.engine.objects.lifeline import run_lock_path
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError, PreconditionError, UsageError
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.lab.plan import expand_secret_values
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.records.evidence import list_service_logs
from lyra_tasks.rules.secrets import redact, redacted_values
from lyra_tasks.units import parse_duration

_POLL_INTERVAL_S = 0.2


class LogLine(NamedTuple):
    """One line: time stamp (UTC, ISO), service, text."""

    timestamp: str
    service: str
    text: str


@dataclass(frozen=True)
class LogSource:
    """Where logs are read: a run's folder, or the containers of the development lab."""

    run: str
    directory: Path
    services: tuple[str, ...]
    lab: DevLab | None


def find_log_source(work: Workspace, run: str, services: Sequence[str]) -> LogSource:
    """The logs of `run`; without one, of the development lab, else of the last run that has any."""
    lab = DevStore(work.paths.state).read()
    if lab is not None and run in {"", lab.run}:
        return LogSource(lab.run, work.paths.runs / lab.run / "logs", _select_services(lab.services, services), lab)
    run = run or find_last_logged_run(work.paths.runs)
    directory = work.paths.runs / run / "logs"
    if not run or not directory.is_dir():
        raise PreconditionError(
            f"there are no logs of {run or 'any run'}",
            hint=f"runs with logs: {', '.join(_list_logged_runs(work.paths.runs)[-5:]) or 'none; run `test` or `create` first'}",
        )
    return LogSource(run, directory, _select_services(_list_logged_services(directory), services), None)


def find_last_logged_run(runs: Path) -> str:
    """The last run that has logs, or nothing."""
    return max(_list_logged_runs(runs), default="")


def read_logs(work: Workspace, source: LogSource, since: str) -> list[LogLine]:
    """Every line, in the order of time; `since` is a duration such as `10m`, or nothing."""
    start = _start_timestamp(since)
    if source.lab is not None:
        secrets = _collect_secrets(work, source.lab)
        lines = [line for name in source.services for line in _read_container_log(work, source.lab, name, secrets)]
    else:
        lines = [line for name in source.services for line in _read_log_file(source.directory, name)]
    return sorted((line for line in lines if line.timestamp >= start), key=lambda line: line.timestamp)


def follow_logs(work: Workspace, source: LogSource, since: str) -> Iterator[LogLine]:
    """Lines as they come, until everything that writes them has ended."""
    if source.lab is not None:
        yield from _follow_containers(work, source.lab, source.services, _start_timestamp(since))
    else:
        yield from _follow_files(work, source, _start_timestamp(since))


def save_lab_logs(work: Workspace, lab: DevLab) -> None:
    """Keep what the containers of a development lab printed in its run's folder, as a test's logs are kept."""
    directory = work.paths.runs / lab.run / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    secrets = _collect_secrets(work, lab)
    for name in lab.services:
        entries = [
            (line, stream)
            for stream in ("out", "err")
            for line in _read_container_log(work, lab, name, secrets, (stream,))
        ]
        entries.sort(key=lambda entry: entry[0].timestamp)
        text = "".join(f"{line.timestamp} {stream} {line.text}\n" for line, stream in entries)
        (directory / f"{name}.log").write_text(text, encoding="utf-8")
    merge_logs(directory, lab.services)


def _read_container_log(
    work: Workspace, lab: DevLab, name: str, secrets: Sequence[str], streams: Sequence[str] = ("out", "err")
) -> list[LogLine]:
    output = read_log_lines(work.engine, lab.services[name].id, streams=streams)
    return [_redacted_line(name, timestamp, text, secrets) for timestamp, text in output]


def _follow_containers(work: Workspace, lab: DevLab, names: Sequence[str], start: str) -> Iterator[LogLine]:
    """A thread for each container; what ends one that is not its container's end is the fault of all."""
    secrets = _collect_secrets(work, lab)
    queue: Queue[LogLine | LyraError | None] = Queue()

    def forward_lines(name: str) -> None:
        try:
            for timestamp, text in read_log_lines(work.engine, lab.services[name].id, follow=True):
                queue.put(_redacted_line(name, timestamp, text, secrets))
            queue.put(None)
        except LyraError as error:
            queue.put(error)

    for name in names:
        threading.Thread(target=forward_lines, args=(name,), daemon=True).start()
    running = len(names)
    while running:
        item = queue.get()
        if item is None:
            running -= 1
        elif isinstance(item, LyraError):
            raise item
        elif item.timestamp >= start:
            yield item


def _follow_files(work: Workspace, source: LogSource, start: str) -> Iterator[LogLine]:
    """A test that runs in another process: its files grow, until the lock of its run is gone."""
    lock = run_lock_path(work.paths.state, source.run)
    line_counts = dict.fromkeys(source.services, 0)
    while True:
        running = lock.exists()
        new_lines = []
        for name in source.services:
            lines = _read_log_file(source.directory, name)
            new_lines += lines[line_counts[name] :]
            line_counts[name] = len(lines)
        yield from sorted((line for line in new_lines if line.timestamp >= start), key=lambda line: line.timestamp)
        if not running:
            return
        time.sleep(_POLL_INTERVAL_S)


def _read_log_file(directory: Path, name: str) -> list[LogLine]:
    path = directory / f"{name}.log"
    if not path.exists():
        return []
    complete_text, newline, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    lines = []
    for line in complete_text.split("\n") if newline else ():
        timestamp, _, rest = line.partition(" ")
        lines.append(LogLine(timestamp, name, rest.partition(" ")[2]))
    return lines


def _redacted_line(name: str, timestamp: str, text: str, secrets: Iterable[str]) -> LogLine:
    return LogLine(timestamp, name, console.sanitize(redact(text, secrets)))


def _collect_secrets(work: Workspace, lab: DevLab) -> tuple[str, ...]:
    """The secrets of all services, asked of the engine, since nothing else may know them; and those of the project."""
    values = list(redacted_values(work.config, work.root))
    for name, service in lab.services.items():
        values += read_environment_values(work.engine, service.id, service.secret_variables)
        if lab.holder:
            values += read_lines_below(work.engine, lab.holder, f"{HOLDER_MOUNT_ROOT}/lyra-{lab.run}-{name}-secrets")
    return expand_secret_values(values)


def _start_timestamp(since: str) -> str:
    if not since:
        return ""
    from datetime import UTC, datetime, timedelta

    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(f"--since takes a duration, not {since!r}", hint='for example "10m" or "90s"') from error
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _select_services(available: Iterable[str], requested: Sequence[str]) -> tuple[str, ...]:
    names = tuple(sorted(available))
    for name in requested:
        if not any(_is_service(service, name) for service in names):
            raise UsageError(f"there is no log of {name!r}", hint=f"there are logs of: {', '.join(names) or 'nothing'}")
    return tuple(service for service in names if not requested or any(_is_service(service, name) for name in requested))


def _is_service(service: str, requested: str) -> bool:
    """Whether a log is the one of the service `wanted`, in whichever group."""
    return requested in {service, service.rpartition("/")[2]}


def _list_logged_services(directory: Path) -> list[str]:
    """Those of a test's groups are called GROUP/SERVICE, as their files are."""
    return [path.relative_to(directory).with_suffix("").as_posix() for path in list_service_logs(directory)]


def _list_logged_runs(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("*/logs") if _list_logged_services(path))
