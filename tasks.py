"""This repository's own words: Lyra's, together with `check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.tasks import task

import lyra_tasks

_HERE = Path(__file__).resolve().parent


@task(help={"only": "run the tests whose names contain this", "fast": "leave out the tests that need an engine"})
def check(c: Any, only: str = "", fast: bool = False) -> None:
    """Format, lint, types, tests: what must be green before anything is merged."""
    python = f'"{sys.executable}"'
    tests = " ".join([*([f'-k "{only}"'] if only else []), *(["--ignore=tests/engine"] if fast else [])])
    with c.cd(str(_HERE)):
        for command in ("ruff format --check .", "ruff check .", "mypy", f"pytest {tests}".strip()):
            c.run(f"{python} -m {command}", echo=True, echo_format="== {command}", pty=False, in_stream=False)


namespace: Collection = lyra_tasks.collection(check)
