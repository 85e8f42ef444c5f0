"""The parts of a first use: from a fresh clone, with empty caches, to the demo's bundle."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Measurement, Row, measure, plain_environment
from benchmarks.project import REPOSITORY

STEPS: dict[str, tuple[str, ...]] = {
    "Python environment": ("--version",),
    "packages and start of the engine": ("engine.up",),
    "bases and build": ("build",),
    "test": ("test",),
    "promote": ("promote",),
}


def measure_cold_start() -> Iterator[Row]:
    """Measure once, with this machine's network, what the user runs; each part is shown against the whole."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
        clone = Path(name, "clone")
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        environment = plain_environment() | {
            "XDG_STATE_HOME": f"{name}/state",
            "XDG_CACHE_HOME": f"{name}/cache",
            "PIP_CACHE_DIR": f"{name}/pip",
        }
        try:
            parts = {step: _run(clone, environment, *arguments) for step, arguments in STEPS.items()}
        finally:
            subprocess.run(["./inv", "clean", "--all", "--yes"], cwd=clone, env=environment, check=False)
            shutil.rmtree(Path(name, "cache"), ignore_errors=True)
    whole = sum(part.seconds for part in parts.values())
    for step, part in parts.items():
        yield Row(f"cold start: {step}", "the whole cold start", part.seconds, whole, 1.0)


def _run(clone: Path, environment: dict[str, str], *arguments: str) -> Measurement:
    return measure(["./inv", *arguments], clone, environment)
