"""Follow and read the logs of containers and their resource usage."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lyra_tasks import console
from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.records.service_logs import (
    MAX_LOG_BYTES,
    LogFileReader,
    LogReader,
    read_last_lines,
    truncation_notice,
)
from lyra_tasks.redaction import create_redactor, redact

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_LINE_BYTES = 1 << 20  # longer lines are split
_TIMESTAMP_MARGIN_S = 0.001  # the engine's time stamps have nanoseconds, which a float loses
_STOP_TIMEOUT_S = 0.02  # enough for a thread that is busy with output


@dataclass
class LogFollower:
    """A thread that writes a container's output to a file, with time stamps and redacted secrets.

    `error` is set if the file could not be written.
    """

    engine: Engine
    container: str
    path: Path
    redacted_values: tuple[str, ...] = ()
    error: OSError | None = None
    max_bytes: int = MAX_LOG_BYTES
    _kept_bytes: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Attach to a container; call this before it is started, or the first bytes may be lost."""
        with translate_errors("following a container's log"):
            stream = self.engine.stream_api.attach(self.container, stdout=True, stderr=True, stream=True, demux=True)
        self._start_thread(stream)

    def resume(self, since: float) -> None:
        """Follow a restarted container from its first line after `since` (seconds since 1970)."""
        for name in ("out", "err"):
            with translate_errors("following a container's log"):
                chunks = self.engine.stream_api.logs(
                    self.container, stream=True, follow=True, stdout=name == "out", stderr=name == "err", since=since
                )
            self._start_thread(_demultiplex(chunks, name))

    def finish(self, timeout: float = 5.0) -> None:
        """Wait until the container's last line has been written."""
        for thread in self._threads:
            thread.join(timeout)

    def stop(self) -> None:
        """Stop following; a thread that waits for output ends with the next one."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)

    def open_reader(self) -> LogReader:
        """Return a reader of the output, without time stamps."""
        read_lines = LogFileReader(self.path)
        return lambda: (line.split(" ", 2)[-1] for line in read_lines())

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines of the file."""
        return read_last_lines(self.path, count)

    def _start_thread(self, stream: Any) -> None:
        thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, stream: Any) -> None:
        try:
            self._write(stream)
        except OSError as error:
            error.filename = str(self.path)
            self.error = error

    def _write(self, stream: Any) -> None:
        partial_lines = {"out": b"", "err": b""}
        with self.path.open("a", encoding="utf-8", buffering=1) as file:
            for out, err in _iterate_until_error(lambda: stream):
                if self._stopped.is_set():
                    return
                for stream_name, chunk in (("out", out), ("err", err)):
                    if chunk and self._kept_bytes <= self.max_bytes:
                        complete, newline, rest = (partial_lines[stream_name] + chunk).rpartition(b"\n")
                        if newline:
                            self._write_lines(file, stream_name, complete)
                        if len(rest) > _MAX_LINE_BYTES:
                            prefix, rest = _split_partial_line(rest, self.redacted_values)
                            self._write_lines(file, stream_name, prefix)
                        partial_lines[stream_name] = rest
            for stream_name, line in partial_lines.items():
                if line:
                    self._write_lines(file, stream_name, line)

    def _write_lines(self, file: TextIO, stream_name: str, data: bytes) -> None:
        """Write lines, or a notice in their place once the size limit is reached."""
        text = create_redactor(self.redacted_values).redact_bytes(data).decode(errors="replace")
        prefix = f"{utc_timestamp()} {stream_name} "
        lines = []
        for line in console.sanitize(text.replace("\r\n", "\n").removesuffix("\r")).split("\n"):
            if self._kept_bytes > self.max_bytes:
                break
            kept_line = f"{prefix}{line}\n"
            self._kept_bytes += len(kept_line.encode())
            if self._kept_bytes > self.max_bytes:
                kept_line = f"{prefix}{truncation_notice(self.max_bytes)}\n"
            lines.append(kept_line)
        file.write("".join(lines))


def _split_partial_line(line: bytes, redacted_values: Sequence[str]) -> tuple[bytes, bytes]:
    """Split an overlong line so that the remainder contains any secret that is not complete yet."""
    redactor = create_redactor(tuple(redacted_values))
    line = redactor.redact_bytes(line)
    end = max(0, len(line) - redactor.max_spelling_bytes)
    return line[:end], line[end:]


def _demultiplex(chunks: Iterable[bytes], name: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    for chunk in chunks:
        yield (chunk, None) if name == "out" else (None, chunk)


def read_log_lines(
    engine: Engine,
    container: str,
    *,
    redacted_values: Sequence[str] = (),
    follow: bool = False,
    streams: Sequence[str] = ("out", "err"),
    after: str = "",
    last: int | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield time stamp and text of each log line, with `follow` until the container exits; nothing if it is gone.

    `after` is the time stamp of a line that has been read; of all lines, `last` selects the last ones. Secrets are
    redacted. A very long line is split: the rest has the time stamp of its beginning.
    """
    from docker.errors import NotFound

    partial = b""

    def parse(line: bytes) -> tuple[str, str]:
        timestamp, _, text = line.rstrip(b"\r").decode(errors="replace").partition(" ")
        return timestamp, redact(text, redacted_values)

    with translate_errors("reading a container's log"):
        try:
            chunks = engine.stream_api.logs(
                container, stream=True, follow=follow, timestamps=True,
                stdout="out" in streams, stderr="err" in streams,
                since=_seconds_before(after) if after else None, tail="all" if last is None else last,
            )  # fmt: skip
            for chunk in chunks:
                *complete, partial = (partial + chunk).split(b"\n")
                yield from (line for line in map(parse, complete) if line[0] > after)
                if len(partial) > _MAX_LINE_BYTES:
                    begin, rest = _split_partial_line(partial, redacted_values)
                    timestamp, text = parse(begin)
                    yield timestamp, text
                    partial = timestamp.encode() + b" " + rest
        except NotFound:
            return
    if partial and (line := parse(partial))[0] > after:
        yield line


def _seconds_before(timestamp: str) -> float:
    """Return a time stamp of the engine in seconds since 1970, or a moment before it."""
    return datetime.fromisoformat(timestamp).timestamp() - _TIMESTAMP_MARGIN_S


def was_kill_requested(engine: Engine, container: str, finished_at: str) -> bool:
    """Return whether somebody asked the engine to kill or stop a container that exited at `finished_at` (RFC 3339)."""
    until = math.ceil(datetime.fromisoformat(finished_at).timestamp())
    filters = {"container": container, "event": "kill"}
    with translate_errors("reading the events of a container"):
        return any(True for _ in engine.api.events(since=0, until=until, filters=filters, decode=True))


@dataclass(frozen=True)
class StatsSample:
    """One measurement: memory in bytes, CPU in cores since the previous sample, limits as the kernel reports them."""

    at: str
    memory: int
    memory_limit: int
    cpu: float
    pids: int
    pids_limit: int


@dataclass
class StatsSampler:
    """A thread that samples a container's resource usage until it exits."""

    engine: Engine
    container: str
    samples: list[StatsSample] = field(default_factory=list)

    def start(self) -> None:
        """Start sampling, once a second."""
        threading.Thread(target=self._follow, daemon=True).start()

    def sample_now(self) -> StatsSample | None:
        """Take a sample now and keep it; return None if the container has just exited.

        The stream sends its first sample only after a second or two.
        """
        with translate_errors("reading the stats of a container"):
            sample = _read_sample(self.engine.api.stats(self.container, stream=False, one_shot=True))
        if sample is not None:
            self.samples.append(sample)
        return sample

    def _follow(self) -> None:
        for raw in _iterate_until_error(lambda: self.engine.stream_api.stats(self.container, decode=True, stream=True)):
            sample = _read_sample(raw)
            if sample is not None:
                self.samples.append(sample)


def _read_sample(document: Any) -> StatsSample | None:
    """Return a sample, or None if the engine's document has none."""
    with suppress(PreconditionError), translate_failures(PreconditionError):
        return parse_stats_sample(document)
    return None


def parse_stats_sample(document: dict[str, Any]) -> StatsSample | None:
    """Parse the engine's stats document; return None for the empty one of a container that has just exited."""
    memory = document.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    cpu, previous = document["cpu_stats"], document["precpu_stats"]
    cpu_time = cpu["cpu_usage"]["total_usage"] - previous["cpu_usage"]["total_usage"]
    system_time = cpu.get("system_cpu_usage", 0) - previous.get("system_cpu_usage", 0)
    has_previous = bool(previous.get("system_cpu_usage")) and system_time > 0
    cores = cpu_time / system_time * cpu.get("online_cpus", 1) if has_previous else 0.0
    pids = document.get("pids_stats") or {}
    return StatsSample(
        at=utc_timestamp(),
        memory=int(memory["usage"]),
        memory_limit=int(memory.get("limit", 0)),
        cpu=round(cores, 3),
        pids=int(pids.get("current", 0)),
        pids_limit=int(pids.get("limit") or 0),
    )


def _iterate_until_error(stream: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield from a stream until it breaks; a lost engine is reported by the main thread."""
    with suppress(LyraError, OSError, ValueError), translate_errors("following a container"):
        yield from stream()


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Poll `condition` until it holds; return False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def utc_timestamp() -> str:
    """Return the current time as log lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
