"""Following containers: logs from the first byte, resource use once a second, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lyra_tasks import console
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.volumes import open_tar
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_LINE_BYTES = 1 << 20  # bytes of a line that are kept in memory; what comes then is another line
_MAX_LOG_BYTES = 64 << 20  # bytes of a log that are kept: a service that prints without end must not fill the disk


@dataclass(frozen=True)
class StatsSample:
    """One measurement: memory in bytes, CPU in cores since the sample before, `limits` as the kernel has them."""

    at: str
    memory: int
    memory_limit: int
    cpu: float
    pids: int
    pids_limit: int


@dataclass
class LogFollower:
    """Writes what a container prints to a file, line by line with a time stamp, secrets blotted out."""

    engine: Engine
    container: str
    path: Path
    redacted_values: tuple[str, ...] = ()
    error: OSError | None = None
    max_bytes: int = _MAX_LOG_BYTES
    _received_bytes: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Attach; call before the container is started, or the first bytes of a burst may be lost."""
        with translate_errors("following a container's log"):
            stream = self.engine.stream_api.attach(self.container, stdout=True, stderr=True, stream=True, demux=True)
        self._start_thread(stream)

    def resume(self, since: float) -> None:
        """Follow a container that was started again, from its first line after `since` (seconds of the epoch) on."""
        for stream in ("out", "err"):
            with translate_errors("following a container's log"):
                chunks = self.engine.stream_api.logs(
                    self.container,
                    stream=True,
                    follow=True,
                    stdout=stream == "out",
                    stderr=stream == "err",
                    since=since,
                )
            self._start_thread((chunk, None) if stream == "out" else (None, chunk) for chunk in chunks)

    def finish(self, timeout: float = 5.0) -> None:
        """Wait until the container's last line is written."""
        for thread in self._threads:
            thread.join(timeout)

    def text(self) -> str:
        """Everything so far, without time stamps."""
        return "\n".join(line.split(" ", 2)[-1] for line in self.lines())

    def lines(self) -> list[str]:
        """Everything so far, as it stands in the file."""
        # whatever else counts as the end of a line somewhere is a character of this one
        *complete, partial = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return [*complete, partial] if partial else complete

    def _start_thread(self, stream: Any) -> None:
        thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, stream: Any) -> None:
        """Write until the stream ends; a disk that takes no more is kept in `fault`, for the run to end with."""
        try:
            self._write(stream)
        except OSError as error:
            error.filename = str(self.path)
            self.error = error

    def _write(self, stream: Any) -> None:
        partial_lines = {"out": b"", "err": b""}
        with self.path.open("a", encoding="utf-8", buffering=1) as file:
            for out, err in _iterate_until_error(lambda: stream):
                for stream_name, chunk in (("out", out), ("err", err)):
                    if chunk:
                        *complete, partial_lines[stream_name] = (partial_lines[stream_name] + chunk).split(b"\n")
                        for line in complete:
                            self._write_line(file, stream_name, line)
                        if len(partial_lines[stream_name]) > _MAX_LINE_BYTES:
                            prefix, partial_lines[stream_name] = self._split_partial_line(partial_lines[stream_name])
                            self._write_line(file, stream_name, prefix)
            for stream_name, line in partial_lines.items():
                if line:
                    self._write_line(file, stream_name, line)

    def _write_line(self, file: TextIO, stream_name: str, line: bytes) -> None:
        """Write a line as long as there is room for it; the first that has none says so instead."""
        if self._received_bytes > self.max_bytes:
            return
        self._received_bytes += len(line) + 1
        if self._received_bytes > self.max_bytes:
            line = f"lyra: more than {console.format_bytes(self.max_bytes)} were printed; the rest is not kept".encode()
        file.write(self._format_line(stream_name, line))

    def _split_partial_line(self, line: bytes) -> tuple[bytes, bytes]:
        """What can be written of a line that does not end, and the rest: in that, a secret may have begun."""
        for value in self.redacted_values:
            line = line.replace(value.encode(), b"***")
        end = len(line) - max((len(value.encode()) for value in self.redacted_values), default=0)
        return line[:end], line[end:]

    def _format_line(self, stream_name: str, line: bytes) -> str:
        text = line.decode(errors="replace").rstrip("\r")
        for value in self.redacted_values:
            text = text.replace(value, "***")
        return f"{_utc_timestamp()} {stream_name} {console.sanitize(text)}\n"


@dataclass
class StatsSampler:
    """Samples a container's resource use until it ends."""

    engine: Engine
    container: str
    samples: list[StatsSample] = field(default_factory=list)

    def start(self) -> None:
        """Begin; one sample a second, pushed by the engine over one connection."""
        threading.Thread(target=self._follow, daemon=True).start()

    def sample_now(self) -> StatsSample | None:
        """A sample of this moment, kept with the others; None of a container that has just ended.

        The first of the stream takes the engine a second or two, since it measures the use of processors meanwhile.
        """
        with translate_errors("measuring a container"):
            sample = parse_stats_sample(self.engine.api.stats(self.container, stream=False, one_shot=True))
        if sample is not None:
            self.samples.append(sample)
        return sample

    def _follow(self) -> None:
        for raw in _iterate_until_error(lambda: self.engine.stream_api.stats(self.container, decode=True, stream=True)):
            sample = parse_stats_sample(raw)
            if sample is not None:
                self.samples.append(sample)


def _iterate_until_error(stream: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """What a stream brings; the thread that waits for the engine's answers is the one to report that it is gone."""
    with suppress(LyraError, OSError, ValueError), translate_errors("following a container"):
        yield from stream()


def parse_stats_sample(document: dict[str, Any]) -> StatsSample | None:
    """A sample out of the engine's own document; None for the empty one of a container that has just ended."""
    memory = document.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    cpu, previous = document["cpu_stats"], document["precpu_stats"]
    cpu_time = cpu["cpu_usage"]["total_usage"] - previous["cpu_usage"]["total_usage"]
    system_time = cpu.get("system_cpu_usage", 0) - previous.get("system_cpu_usage", 0)
    cores = (
        cpu_time / system_time * cpu.get("online_cpus", 1)
        if previous.get("system_cpu_usage") and system_time > 0
        else 0.0
    )
    pids = document.get("pids_stats") or {}
    return StatsSample(
        at=_utc_timestamp(),
        memory=int(memory["usage"]),
        memory_limit=int(memory.get("limit", 0)),
        cpu=round(cores, 3),
        pids=int(pids.get("current", 0)),
        pids_limit=int(pids.get("limit") or 0),
    )


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Poll `condition` until it holds; False when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def _utc_timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_log_lines(
    engine: Engine, container: str, *, follow: bool = False, streams: Sequence[str] = ("out", "err")
) -> Iterator[tuple[str, str]]:
    """Time stamp and text of every line of `streams`, in the order they came; with `follow`, until the container ends.

    Nothing if the container is gone.
    """
    from docker.errors import NotFound

    partial = b""
    with translate_errors("reading a container's log"):
        try:
            chunks = engine.stream_api.logs(
                container, stream=True, follow=follow, timestamps=True, stdout="out" in streams, stderr="err" in streams
            )
            for chunk in chunks:
                *complete, partial = (partial + chunk).split(b"\n")
                for line in complete:
                    yield _split_timestamp(line)
        except NotFound:
            return
    if partial:
        yield _split_timestamp(partial)


def read_environment_values(engine: Engine, container: str, variables: Sequence[str]) -> list[str]:
    """The values that a container has in environment `variables`."""
    from docker.errors import NotFound

    with translate_errors("looking at a container"):
        try:
            environment = engine.api.inspect_container(container)["Config"].get("Env") or []
        except NotFound:
            return []
    values = dict(variable.split("=", 1) for variable in environment)
    return [values[name] for name in variables if name in values]


def read_lines_below(engine: Engine, holder: str, directory: str) -> list[str]:
    """The lines of the files in a folder of the holder."""
    lines: list[str] = []
    with open_tar(engine, holder, directory) as archive:
        for entry in archive or ():
            stream = archive.extractfile(entry) if archive and entry.isfile() else None
            if stream is not None:
                lines += [line.strip() for line in stream.read().decode(errors="replace").splitlines()]
    return lines


def _split_timestamp(line: bytes) -> tuple[str, str]:
    timestamp, _, text = line.rstrip(b"\r").decode(errors="replace").partition(" ")
    return timestamp, text
