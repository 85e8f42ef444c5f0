"""Measure time and memory of programs that run in turn, so that other load of the machine affects all of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

_POLL_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Row:
    """A row of the report: a measurement and its reference, in seconds, or in bytes if `unit` is "B".

    `ratios` are those of the single rounds; empty if the reference is a fixed number.
    """

    name: str
    reference: str
    ours: float
    theirs: float
    goal: float
    unit: str = "s"
    ratios: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """Return our value as a multiple of the reference."""
        return self.ours / self.theirs

    @property
    def is_met(self) -> bool:
        """Return whether the goal is met."""
        return self.ratio <= self.goal


@dataclass(frozen=True)
class Measurement:
    """The seconds and peak memory in bytes of a program, and the seconds of each round."""

    seconds: float
    memory: int
    rounds: tuple[float, ...] = field(default=(), compare=False)

    def minus(self, start: Measurement) -> Measurement:
        """Subtract the time of `start`, round by round."""
        rounds = tuple(ours - theirs for ours, theirs in zip(self.rounds, start.rounds, strict=True))
        return Measurement(self.seconds - start.seconds, self.memory, rounds)


def measure(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Measurement:
    """Run a program that must succeed and measure it; peak memory is the kernel's high-water mark."""
    os.sync()  # what the one before has written is not to be written during this one
    started, peak = time.perf_counter(), 0
    log = directory / ".benchmark.log"
    with log.open("wb") as output, subprocess.Popen(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    ) as process:  # fmt: skip
        while process.poll() is None:
            # wait4() would include the memory of this process
            peak = max(peak, _peak_memory(process.pid))
            time.sleep(_POLL_INTERVAL_S)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{log.read_text()[-3000:]}")
    log.unlink()
    return Measurement(seconds, peak)


def measure_in_turn(rounds: int, **calls: Callable[[], Measurement]) -> dict[str, Measurement]:
    """Make all calls in turn for some rounds and return the median of each."""
    measurements: dict[str, list[Measurement]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            measurements[name].append(call())
    return {
        name: Measurement(
            median(one.seconds for one in series),
            max(one.memory for one in series),
            tuple(one.seconds for one in series),
        )
        for name, series in measurements.items()
    }


def create_row(name: str, ours: Measurement, reference: str, theirs: Measurement, goal: float) -> Row:
    """Return the row of two programs that were run in turn."""
    ratios = tuple(one / other for one, other in zip(ours.rounds, theirs.rounds, strict=True))
    return Row(name, reference, ours.seconds, theirs.seconds, goal, ratios=ratios)


def measure_script(script: str, directory: Path, environment: Mapping[str, str]) -> Measurement:
    """Run and measure a bash script."""
    return measure(["bash", "-o", "pipefail", "-ec", script], directory, environment)


def _peak_memory(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "0 0")
    return int(line.split()[1]) * 1024


def plain_environment() -> dict[str, str]:
    """Return the variables of this process without those that select an engine or configuration."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "LYRA_", "XDG_"))}
