"""Work on one project for a month, in some minutes: what grows, and does anything get slower?

    python benchmarks/month.py [--rounds N] [--json FILE]

Each round edits an image, builds and tests it; now and then it commits, promotes, tags, creates the development
environment, kills a command, or cleans. At four points it counts what there is and measures commands. Needs root on
Debian or Ubuntu for its own engine. Exits with 1 if something grows without a bound.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.project import CACHE, Project, create_project  # noqa: E402
from lyra_tasks import console  # noqa: E402
from lyra_tasks.engine.sandbox import find_sandbox, shut_down_sandbox  # noqa: E402

SETTINGS = """\
resources = { keep_tests = 20, evidence = "64m", keep_images = 3, cache = "64m", journal = "256k" }
engine = { sandbox = "always" }
"""
BOUNDS = {"cache": 80 << 20, "engine": 128 << 20}
"""What the limits in the settings allow: bytes of layers, and of the build cache, images and the engine's own files."""
MAX_REFERENCES = 4
MAX_GROWTH = 1.15
EDITED_BYTES = 1 << 20
REPEATS = 5
FOREIGN_VOLUME = "somebody-else"
_PROGRAM = (sys.executable, "-m", "lyra_tasks.tasks.program")
_IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


@dataclass(frozen=True)
class Figures:
    """What there is after some rounds; sizes are in bytes, times are medians of seconds: of CPU, and elapsed."""

    round: int
    references: dict[str, int]
    evidence: int
    state: int
    cache: int
    engine: int
    runs: int
    temporary_entries: int
    buildx_refs: int
    foreign_volume: bool
    cpu_seconds: dict[str, float]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Month:
    """A project with a private engine, and the directories that may grow."""

    project: Project
    directory: Path

    @property
    def state(self) -> Path:
        """Return the state directory of the project."""
        (state,) = (self.directory / "state" / "lyra").iterdir()
        return state

    @property
    def temporary(self) -> Path:
        """Return the temporary directory of all commands."""
        return self.directory / "tmp"

    def docker(self, *arguments: str) -> str:
        """Run the docker command and return its output."""
        box = find_sandbox(self.state)
        if box is None:
            raise SystemExit("The private engine has ended")
        command, environment = [str(box.docker), *arguments], {**os.environ, **box.environment()}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def git(self, *arguments: str) -> None:
        """Run git in the project."""
        subprocess.run(["git", *_IDENTITY, *arguments], cwd=self.project.root, check=True, capture_output=True)

    def edit(self, number: int) -> None:
        """Change a file of the first image, whose bytes cannot be compressed."""
        content = hashlib.shake_256(str(number).encode()).digest(EDITED_BYTES)
        (self.project.root / "one" / "page").write_bytes(content)

    def kill(self, *arguments: str, after_s: float) -> None:
        """Start a command and kill it with all its children."""
        process = subprocess.Popen(
            [*_PROGRAM, *arguments], cwd=self.project.root, env=self.project.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(after_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start_month(directory: Path) -> Month:
    """Create a project with two images and an engine, and an object of somebody else in that."""
    project = create_project(directory, None, {"one": [], "two": []})
    for name in ("tmp", "cache/lyra"):
        (directory / name).mkdir(parents=True)
    for name in ("engines", "apt"):  # the engine's packages need not be downloaded again
        (CACHE / name).mkdir(parents=True, exist_ok=True)
        (directory / "cache" / "lyra" / name).symlink_to(CACHE / name)
    environment = {"XDG_CACHE_HOME": str(directory / "cache"), "TMPDIR": str(directory / "tmp")}
    month = Month(replace(project, environment={**project.environment, **environment}), directory)
    config = project.root / ".lyra.toml"
    config.write_text(config.read_text().replace("schema = 1\n", f"schema = 1\n{SETTINGS}", 1))
    dockerfile = project.root / "one" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("COPY hold", "COPY page /page\nCOPY hold", 1))
    month.edit(0)
    month.git("add", "--all")
    month.git("commit", "--quiet", "--message", "feat: begin")
    month.project.output("engine.up")
    month.docker("volume", "create", FOREIGN_VOLUME)
    return month


def run_round(month: Month, number: int) -> None:
    """Do what a developer does between two cups of coffee."""
    month.edit(number)
    if number % 3 == 0:
        month.git("add", "--all")
        month.git("commit", "--quiet", "--message", f"feat: edit {number}")
    if number % 7 == 0:
        month.kill("test", after_s=0.3 + number % 5 * 0.2)
    month.project.output("build", "test")
    if number % 4 == 0:
        month.project.output("promote")
    if number % 12 == 0:
        month.git("tag", "--annotate", "--message", "release", f"v1.{number}.0")
        month.project.output("build", "test", "promote")
    if number % 6 == 0:
        month.project.output("create")
    if number % 10 == 0:
        month.project.output("clean")


def take_figures(month: Month, number: int) -> Figures:
    """Count what there is, and measure the commands."""
    project, state = month.project, month.state
    project.output("build", "test")
    commands = {"status": ("status",), "doctor": ("doctor",), "history": ("history",), "build": ("build",)}
    times = {name: [_time_command(project, *arguments) for _ in range(REPEATS)] for name, arguments in commands.items()}
    tags = month.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    figures = Figures(
        round=number,
        references=dict(Counter(tag.partition(":")[0] for tag in tags if tag.startswith("sample/"))),
        evidence=_size(state / "evidence"),
        state=_size(state, "--exclude=sandbox"),
        cache=_size(month.directory / "cache"),
        engine=_size(state / "sandbox"),
        runs=len(list((project.root / ".lyra" / "runs").iterdir())),
        temporary_entries=len(list(month.temporary.iterdir())),
        buildx_refs=sum(path.is_file() for path in state.glob("sandbox/config/buildx/refs/**/*")),
        foreign_volume=FOREIGN_VOLUME in month.docker("volume", "ls", "--quiet").split(),
        cpu_seconds={},
        seconds={},
    )
    times["clean"] = []
    for _ in range(3):
        project.output("build", "test", "--keep-running")
        times["clean"].append(_time_command(project, "clean"))
    return replace(
        figures,
        cpu_seconds={name: round(median(cpu for cpu, _ in series), 3) for name, series in times.items()},
        seconds={name: round(median(wall for _, wall in series), 3) for name, series in times.items()},
    )


def _time_command(project: Project, *arguments: str) -> tuple[float, float]:
    """Run a command and return its CPU time, with that of its children, and the time that it took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*_PROGRAM, *arguments], cwd=project.root, env=project.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started


def _size(directory: Path, *options: str) -> int:
    """Return what a directory takes on the disk, each file once."""
    command = ["du", "-s", "-B1", *options, str(directory)]
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return int(output.split()[0]) if output else 0


def find_growth(points: list[Figures]) -> Iterator[str]:
    """Yield what grows without a bound between the second point and the last, or is beyond its limit."""
    base, last = points[1], points[-1]
    for name, count in last.references.items():
        if count > MAX_REFERENCES:
            yield f"{name} has {count} references"
    if last.temporary_entries > points[0].temporary_entries:
        yield f"{last.temporary_entries - points[0].temporary_entries} entries were left in the temporary directory"
    if not last.foreign_volume:
        yield f"the volume {FOREIGN_VOLUME} is gone"
    for name in ("evidence", "state", "cache", "engine", "buildx_refs"):
        before, after = getattr(base, name), getattr(last, name)
        if after > max(before * MAX_GROWTH + (1 << 20), BOUNDS.get(name, 0)):
            yield f"{name} grew from {before} to {after}"
    for name, seconds in last.cpu_seconds.items():
        if seconds > base.cpu_seconds[name] * MAX_GROWTH:
            yield f"{name} took {base.cpu_seconds[name]:.2f} s of CPU, then {seconds:.2f} s"


def main() -> int:
    """Run all rounds and print a table of the figures."""
    parser = argparse.ArgumentParser(description="Work on one project for a month, in some minutes")
    parser.add_argument("--rounds", type=int, default=120, help="Rounds, a multiple of 4 (default: 120)", metavar="N")
    parser.add_argument("--json", type=Path, help="Also write the figures to FILE", metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the engine as well
    interval = max(options.rounds // 3, 1)
    points: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="lyra-month-") as name:
        try:
            month = start_month(Path(name))
            for number in range(options.rounds + 1):
                if number:
                    run_round(month, number)
                if number % interval == 0:
                    points.append(take_figures(month, number))
                    console.info(json.dumps(asdict(points[-1])))
        finally:
            for state in Path(name, "state", "lyra").glob("*"):
                shut_down_sandbox(state, purge=True)
    rows = [(key, *(str(asdict(point)[key]) for point in points)) for key in asdict(points[0])]
    console.print_table(("figure", *(f"round {point.round}" for point in points)), rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n")
    problems = list(find_growth(points))
    for problem in problems:
        console.warn(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
