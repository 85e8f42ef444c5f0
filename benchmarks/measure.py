"""Times and memory of programs that are run in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

_POLL = 0.02


@dataclass(frozen=True)
class Row:
    """One line of the report: what was measured against what, in seconds, or in bytes where `unit` says so.

    `ratios` are those of the single rounds, from which the spread is told; empty where one side is a fixed number.
    """

    what: str
    against: str
    ours: float
    theirs: float
    goal: float
    unit: str = "s"
    ratios: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """Ours as a multiple of theirs."""
        return self.ours / self.theirs

    @property
    def kept(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio <= self.goal


@dataclass(frozen=True)
class Spent:
    """What a program took: seconds on the clock, bytes of memory at most, and of several rounds each one's time."""

    seconds: float
    memory: int
    rounds: tuple[float, ...] = field(default=(), compare=False)

    def beyond(self, start: Spent) -> Spent:
        """What is left when what `start` took is left out, round by round."""
        rounds = tuple(ours - theirs for ours, theirs in zip(self.rounds, start.rounds, strict=True))
        return Spent(self.seconds - start.seconds, self.memory, rounds)


def spent(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Spent:
    """Run a program that must succeed; of its memory, what the kernel noted as the highest."""
    began, peak = time.perf_counter(), 0
    log = folder / ".benchmark.log"
    with log.open("wb") as output, subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    ) as process:  # fmt: skip
        while process.poll() is None:
            # of the child alone: what wait4() says of it includes the memory of who started it
            peak = max(peak, _highest(process.pid))
            time.sleep(_POLL)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{log.read_text()[-3000:]}")
    log.unlink()
    return Spent(seconds, peak)


def in_turn(times: int, **calls: Callable[[], Spent]) -> dict[str, Spent]:
    """Make all calls one after the other, `times` times over; the median of each."""
    found: dict[str, list[Spent]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            found[name].append(call())
    return {
        name: Spent(
            median(each.seconds for each in every),
            max(each.memory for each in every),
            tuple(each.seconds for each in every),
        )
        for name, every in found.items()
    }


def row(what: str, ours: Spent, against: str, theirs: Spent, goal: float) -> Row:
    """The row of two programs that were run in turn."""
    ratios = tuple(one / other for one, other in zip(ours.rounds, theirs.rounds, strict=True))
    return Row(what, against, ours.seconds, theirs.seconds, goal, ratios=ratios)


def shell(script: str, folder: Path, environment: Mapping[str, str]) -> Spent:
    """Run a line of bash, as somebody would type it."""
    return spent(["bash", "-o", "pipefail", "-ec", script], folder, environment)


def _highest(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "0 0")
    return int(line.split()[1]) * 1024


def plain_environment() -> dict[str, str]:
    """This process's variables without those that would lead to another engine or configuration."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "LYRA_", "XDG_"))}
