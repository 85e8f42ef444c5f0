"""Following containers: logs from the first byte, resource use once a second, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lyra_tasks import console
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.errors import LyraError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_LONGEST = 1 << 20  # bytes of a line that are kept in memory; what comes then is another line
_MOST = 64 << 20  # bytes of a log that are kept: a service that prints without end must not fill the disk


@dataclass(frozen=True)
class Sample:
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
    masked: tuple[str, ...] = ()
    fault: OSError | None = None
    most: int = _MOST
    _kept: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Attach; call before the container is started, or the first bytes of a burst may be lost."""
        with engine_faults("following a container's log"):
            stream = self.engine.streams.attach(self.container, stdout=True, stderr=True, stream=True, demux=True)
        self._carry(stream)

    def resume(self, since: float) -> None:
        """Follow a container that was started again, from its first line after `since` (seconds of the epoch) on."""
        for name in ("out", "err"):
            with engine_faults("following a container's log"):
                chunks = self.engine.streams.logs(
                    self.container, stream=True, follow=True, stdout=name == "out", stderr=name == "err", since=since
                )
            self._carry((chunk, None) if name == "out" else (None, chunk) for chunk in chunks)

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
        *whole, begun = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return [*whole, begun] if begun else whole

    def _carry(self, stream: Any) -> None:
        thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, stream: Any) -> None:
        """Write until the stream ends; a disk that takes no more is kept in `fault`, for the run to end with."""
        try:
            self._write(stream)
        except OSError as error:
            error.filename = str(self.path)
            self.fault = error

    def _write(self, stream: Any) -> None:
        rest = {"out": b"", "err": b""}
        with self.path.open("a", encoding="utf-8", buffering=1) as file:
            for out, err in _until_broken(lambda: stream):
                for name, chunk in (("out", out), ("err", err)):
                    if chunk:
                        *whole, rest[name] = (rest[name] + chunk).split(b"\n")
                        for line in whole:
                            self._keep(file, name, line)
                        if len(rest[name]) > _LONGEST:
                            begun, rest[name] = self._cut(rest[name])
                            self._keep(file, name, begun)
            for name, line in rest.items():
                if line:
                    self._keep(file, name, line)

    def _keep(self, file: TextIO, name: str, raw: bytes) -> None:
        """Write a line as long as there is room for it; the first that has none says so instead."""
        if self._kept > self.most:
            return
        self._kept += len(raw) + 1
        if self._kept > self.most:
            raw = f"lyra: more than {console.size(self.most)} were printed; the rest is not kept".encode()
        file.write(self._line(name, raw))

    def _cut(self, line: bytes) -> tuple[bytes, bytes]:
        """What can be written of a line that does not end, and the rest: in that, a secret may have begun."""
        for value in self.masked:
            line = line.replace(value.encode(), b"***")
        place = len(line) - max((len(value.encode()) for value in self.masked), default=0)
        return line[:place], line[place:]

    def _line(self, name: str, raw: bytes) -> str:
        text = raw.decode(errors="replace").rstrip("\r")
        for value in self.masked:
            text = text.replace(value, "***")
        return f"{_now()} {name} {console.clean(text)}\n"


@dataclass
class StatsSampler:
    """Samples a container's resource use until it ends."""

    engine: Engine
    container: str
    samples: list[Sample] = field(default_factory=list)

    def start(self) -> None:
        """Begin; one sample a second, pushed by the engine over one connection."""
        threading.Thread(target=self._follow, daemon=True).start()

    def now(self) -> Sample | None:
        """A sample of this moment, kept with the others; None of a container that has just ended.

        The first of the stream takes the engine a second or two, since it measures the use of processors meanwhile.
        """
        with engine_faults("measuring a container"):
            sample = read_sample(self.engine.api.stats(self.container, stream=False, one_shot=True))
        if sample is not None:
            self.samples.append(sample)
        return sample

    def _follow(self) -> None:
        for raw in _until_broken(lambda: self.engine.streams.stats(self.container, decode=True, stream=True)):
            sample = read_sample(raw)
            if sample is not None:
                self.samples.append(sample)


def _until_broken(stream: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """What a stream brings; the thread that waits for the engine's answers is the one to report that it is gone."""
    with suppress(LyraError, OSError, ValueError), engine_faults("following a container"):
        yield from stream()


def read_sample(raw: dict[str, Any]) -> Sample | None:
    """A sample out of the engine's own document; None for the empty one of a container that has just ended."""
    memory = raw.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    cpu, before = raw["cpu_stats"], raw["precpu_stats"]
    spent = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = cpu.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cores = spent / passed * cpu.get("online_cpus", 1) if before.get("system_cpu_usage") and passed > 0 else 0.0
    pids = raw.get("pids_stats") or {}
    return Sample(
        at=_now(),
        memory=int(memory["usage"]),
        memory_limit=int(memory.get("limit", 0)),
        cpu=round(cores, 3),
        pids=int(pids.get("current", 0)),
        pids_limit=int(pids.get("limit") or 0),
    )


def wait_for(condition: Callable[[], bool], timeout: float, every: float = 0.1) -> bool:
    """Poll `condition` until it holds; False when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
