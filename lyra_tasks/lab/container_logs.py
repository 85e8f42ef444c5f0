"""Read, follow, save and merge the logs of a lab's containers, with secrets redacted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from lyra_tasks import console
from lyra_tasks.engine.client.monitoring import read_log_lines
from lyra_tasks.engine.objects.containers import read_environment_values
from lyra_tasks.engine.objects.volumes import read_lines_below
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.records.dev import DevLab
from lyra_tasks.records.evidence import LOGS_DIRECTORY, MERGED_LOG
from lyra_tasks.redaction import redact
from lyra_tasks.rules.secrets import expand_secret_values, redacted_values


class LogLine(NamedTuple):
    """A log line; `timestamp` in UTC, as ISO 8601."""

    timestamp: str
    service: str
    text: str


def read_container_logs(work: Workspace, lab: DevLab, names: Sequence[str]) -> list[LogLine]:
    """Return the log lines of some services, one service after the other."""
    secrets = _collect_secrets(work, lab)
    return [line for name in names for line in _read_log(work, lab, name, secrets)]


def follow_container_logs(work: Workspace, lab: DevLab, names: Sequence[str]) -> Iterator[LogLine]:
    """Yield the log lines of some services as they are written, until all their containers have exited."""
    secrets = _collect_secrets(work, lab)
    queue: Queue[LogLine | LyraError | None] = Queue()

    def forward_lines(name: str) -> None:
        try:
            for line in _read_log(work, lab, name, secrets, follow=True):
                queue.put(line)
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
        lines = [
            f"{line.timestamp} {stream} {line.text}\n"
            for stream in ("out", "err")
            for line in _read_log(work, lab, name, secrets, streams=(stream,))
        ]
        lines.sort(key=lambda line: line.partition(" ")[0])
        (directory / f"{name}.log").write_text("".join(lines), encoding="utf-8")
    merge_logs(directory, lab.services)


def merge_logs(logs_directory: Path, services: Iterable[str]) -> None:
    """Merge the logs of all services into one, in the order of their timestamps, with the service's name per line."""
    lines = []
    for name in services:
        path = logs_directory / f"{name}.log"
        if path.exists():
            # only "\n" ends a line: `splitlines` would split at other characters, too
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                timestamp, _, text = line.partition(" ")
                lines.append((timestamp, f"{timestamp} {name} {text}"))
    if lines:
        lines.sort(key=lambda line: line[0])
        merged = "\n".join(text for _, text in lines) + "\n"
        (logs_directory / MERGED_LOG).write_text(merged, encoding="utf-8")


def _read_log(
    work: Workspace,
    lab: DevLab,
    name: str,
    secrets: Sequence[str],
    *,
    follow: bool = False,
    streams: Sequence[str] = ("out", "err"),
) -> Iterator[LogLine]:
    for timestamp, text in read_log_lines(work.engine, lab.services[name].id, follow=follow, streams=streams):
        yield LogLine(timestamp, name, console.sanitize(redact(text, secrets)))


def _collect_secrets(work: Workspace, lab: DevLab) -> tuple[str, ...]:
    """Return the secrets of the project and, read from the engine, the random ones of the lab's services."""
    values = list(redacted_values(work.config, work.root))
    for name, service in lab.services.items():
        values += read_environment_values(work.engine, service.id, service.secret_variables)
        if lab.holder:
            values += read_lines_below(work.engine, lab.holder, f"{HOLDER_MOUNT_ROOT}/lyra-{lab.run}-{name}-secrets")
    return expand_secret_values(values)
