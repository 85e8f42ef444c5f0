"""`invoke --list` in a project of Lyra's, against the same with one empty task."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, in_turn, plain_environment, row, spent
from benchmarks.project import REPOSITORY

TIMES = 15
_OURS = "from lyra_tasks import namespace\n"
_EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def rows() -> Iterator[Row]:
    """The one row."""
    environment = {**plain_environment(), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "invoke", "--list"]
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name:
        folders = {}
        for key, text in (("ours", _OURS), ("empty", _EMPTY)):
            folders[key] = Path(name, key)
            folders[key].mkdir()
            (folders[key] / "tasks.py").write_text(text)
        found = in_turn(
            TIMES,
            ours=lambda: spent(command, folders["ours"], environment),
            empty=lambda: spent(command, folders["empty"], environment),
        )
    yield row("invoke --list", found["ours"], "one empty task", found["empty"], 1.3)
