"""Read and merge the logs of services, lines `TIME STREAM TEXT`, without holding a whole log in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.console import format_bytes
from lyra_tasks.records.evidence import MERGED_LOG

MAX_LOG_BYTES = 64 << 20
"""Maximum size of a service's log: one that prints without end must not fill the disk."""
LogReader = Callable[[], Iterator[str]]
"""Yields lines, at each call at least those that earlier calls have not yielded."""
_MAX_TAIL_BYTES = 1 << 18


@dataclass(frozen=True)
class LogFile:
    """The complete lines of a log, which are read anew at each iteration."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        """Yield the lines without their ends."""
        return LogFileReader(self.path)()


class LogFileReader:
    """Reads the complete lines of a log that may grow; each call yields those that earlier calls have not yielded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def __call__(self) -> Iterator[str]:
        """Yield the lines without their ends; none if there is no file."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:  # in binary, only "\n" ends a line
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield line[:-1].decode(errors="replace")


def read_last_lines(path: Path, count: int, since: int = 0) -> list[str]:
    """Return at most `count` lines from the last 256 KiB of a log, and from the position `since` on."""
    with path.open("rb") as file:
        start = max(since, file.seek(0, 2) - _MAX_TAIL_BYTES)
        file.seek(start)
        lines = file.read().decode(errors="replace").removesuffix("\n").split("\n")
    if start > since and len(lines) > 1:
        del lines[0]  # its beginning is missing
    return [line for line in lines if line][-count:]


def write_log(path: Path, lines: Iterable[str], max_bytes: int = MAX_LOG_BYTES) -> None:
    """Write lines to a log until it has `max_bytes`, and a notice in place of the rest."""
    written_bytes = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            written_bytes += len(line.encode()) + 1
            if written_bytes > max_bytes:
                timestamp, _, rest = line.partition(" ")
                file.write(f"{timestamp} {rest.partition(' ')[0]} {truncation_notice(max_bytes)}\n")
                return
            file.write(f"{line}\n")


def truncation_notice(max_bytes: int) -> str:
    """Return the text that stands in a log for what it does not contain."""
    return f"lyra: log truncated after {format_bytes(max_bytes)}"


def merge_logs(logs_directory: Path, services: Iterable[str]) -> None:
    """Merge the logs of all services into one, in the order of their timestamps, with the service's name per line."""
    logs = [_read_named_lines(logs_directory / f"{name}.log", name) for name in services]
    lines = heapq.merge(*logs, key=_timestamp)
    first = next(lines, None)
    if first is None:
        return
    with (logs_directory / MERGED_LOG).open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{first}\n")
        file.writelines(f"{line}\n" for line in lines)


def _read_named_lines(path: Path, name: str) -> Iterator[str]:
    for line in LogFileReader(path)():
        timestamp, _, text = line.partition(" ")
        yield f"{timestamp} {name} {text}"


def _timestamp(line: str) -> str:
    return line.partition(" ")[0]
