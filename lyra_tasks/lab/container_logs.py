"""Read, follow and save the logs of a lab's containers, with secrets redacted."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from queue import Queue
from typing import NamedTuple

from lyra_tasks import console
from lyra_tasks.engine.client.monitoring import read_log_lines
from lyra_tasks.engine.objects.containers import read_environment_values, wait_for_restart
from lyra_tasks.engine.objects.volumes import read_lines_below
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.records.dev import DevLab
from lyra_tasks.records.evidence import LOGS_DIRECTORY
from lyra_tasks.records.service_logs import merge_logs, write_log
from lyra_tasks.rules.secrets import expand_secret_values, redacted_values

_MAX_QUEUED_LINES = 1000
_RESTART_TIMEOUT_S = 3.0


class LogLine(NamedTuple):
    """A log line; `timestamp` in UTC, as ISO 8601."""

    timestamp: str
    service: str
    text: str


def read_container_logs(work: Workspace, lab: DevLab, names: Sequence[str]) -> Iterator[LogLine]:
    """Yield the log lines of some services by time."""
    secrets = _collect_secrets(work, lab)
    return merge_lines(_read_log(work, lab, name, secrets) for name in names)


def merge_lines(logs: Iterable[Iterator[LogLine]]) -> Iterator[LogLine]:
    """Yield the lines of several logs by time, without holding them."""
    return heapq.merge(*logs, key=lambda line: line.timestamp)


def read_last_container_lines(work: Workspace, lab: DevLab, name: str, count: int) -> tuple[str, ...]:
    """Return the last log lines of a service."""
    secrets = _collect_secrets(work, lab)
    return tuple(line.text for line in _read_log(work, lab, name, secrets, last=count))


def follow_container_logs(
    work: Workspace,
    lab: DevLab,
    names: Sequence[str],
    *,
    after: str = "",
    restart_timeout_s: float = _RESTART_TIMEOUT_S,
) -> Iterator[LogLine]:
    """Yield the log lines of some services by time, then as they are written, until all their containers have exited.

    One that is started again within a time is followed on. With `after`, lines up to this time are left out.
    """
    secrets = _collect_secrets(work, lab)
    last_timestamps = dict.fromkeys(names, after)
    for line in merge_lines(_read_log(work, lab, name, secrets, after=after) for name in names):
        last_timestamps[line.service] = line.timestamp
        yield line
    queue: Queue[LogLine | LyraError | None] = Queue(_MAX_QUEUED_LINES)  # a slow terminal slows the service down

    def forward_lines(name: str) -> None:
        try:
            is_started, last = True, last_timestamps[name]
            while is_started:
                for line in _read_log(work, lab, name, secrets, follow=True, after=last):
                    last = line.timestamp
                    queue.put(line)
                is_started = wait_for_restart(work.engine, lab.services[name].id, restart_timeout_s)
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
        else:
            yield item


def save_lab_logs(work: Workspace, lab: DevLab) -> None:
    """Save the logs of a lab's containers in its run directory, in the format of a test run's logs."""
    directory = work.paths.runs / lab.run / LOGS_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    secrets = _collect_secrets(work, lab)
    for name in lab.services:
        streams = [
            map(partial(_format_line, stream), _read_log(work, lab, name, secrets, streams=(stream,)))
            for stream in ("out", "err")
        ]
        write_log(directory / f"{name}.log", heapq.merge(*streams, key=lambda line: line.partition(" ")[0]))
    merge_logs(directory, lab.services)


def _format_line(stream: str, line: LogLine) -> str:
    return f"{line.timestamp} {stream} {line.text}"


def _read_log(
    work: Workspace,
    lab: DevLab,
    name: str,
    secrets: Sequence[str],
    *,
    follow: bool = False,
    streams: Sequence[str] = ("out", "err"),
    after: str = "",
    last: int | None = None,
) -> Iterator[LogLine]:
    container = lab.services[name].id
    for timestamp, text in read_log_lines(
        work.engine, container, redacted_values=secrets, follow=follow, streams=streams, after=after, last=last
    ):
        yield LogLine(timestamp, name, console.sanitize(text))


def _collect_secrets(work: Workspace, lab: DevLab) -> tuple[str, ...]:
    """Return the secrets of the project and, read from the engine, the random ones of the lab's services."""
    values = list(redacted_values(work.config, work.root))
    for name, service in lab.services.items():
        values += read_environment_values(work.engine, service.id, service.secret_variables)
        if lab.holder:
            values += read_lines_below(work.engine, lab.holder, f"{HOLDER_MOUNT_ROOT}/lyra-{lab.run}-{name}-secrets")
    return expand_secret_values(values)
