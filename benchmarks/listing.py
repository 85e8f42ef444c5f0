"""`invoke --list` with Lyra's tasks, against the same with one empty task."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, create_row, measure, measure_in_turn, plain_environment
from benchmarks.project import REPOSITORY

ROUNDS = 15
_OURS = "from lyra_tasks import namespace\n"
_EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def measure_list() -> Iterator[Row]:
    """Measure both."""
    environment = {**plain_environment(), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "invoke", "--list"]
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
        directories = {}
        for key, text in (("ours", _OURS), ("empty", _EMPTY)):
            directories[key] = Path(name, key)
            directories[key].mkdir()
            (directories[key] / "tasks.py").write_text(text)
        measurements = measure_in_turn(
            ROUNDS,
            ours=lambda: measure(command, directories["ours"], environment),
            empty=lambda: measure(command, directories["empty"], environment),
        )
    yield create_row("invoke --list", measurements["ours"], "one empty task", measurements["empty"], 1.3)
