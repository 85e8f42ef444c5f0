"""Helpers for error tests: exit code, message, hint, no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.lifeline import REAPER_MODULE
from tests.conftest import Outcome, Project, ours


def refused(outcome: Outcome, code: int, *texts: str, hint: bool = True) -> None:
    """Assert that the command exited with `code`, printed all `texts` and a hint, and no traceback."""
    assert outcome.code == code, outcome.text
    assert no_traceback(outcome.text), outcome.text
    for text in texts:
        assert text in outcome.text, f"{text!r} is not in:\n{outcome.text}"
    assert "error: " in outcome.err, outcome.text
    assert not hint or "hint: " in outcome.err, outcome.text


def no_traceback(text: str) -> bool:
    """Return whether the text has no traceback, except of the unclosed socket that only `-W error` reports."""
    return "Traceback" not in re.sub(r"Exception ignored in: <socket.*?ResourceWarning: ", "", text, flags=re.DOTALL)


def labs(engine: Engine) -> list[str]:
    """Return the objects of test runs in the engine, without built images and bases."""
    return [name for name in ours(engine) if name.startswith("lyra-")]


def processes_with(text: str, project: Project | None = None) -> list[int]:
    """Return the other processes with `text` in their arguments, started by commands of the project, if given."""
    variable = f"XDG_STATE_HOME={project.environment['XDG_STATE_HOME']}\0" if project else ""
    pids = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                arguments = (directory / "cmdline").read_bytes()
                is_ours = not project or variable.encode() in (directory / "environ").read_bytes() + b"\0"
            except OSError:
                continue
            if text.encode() in arguments and is_ours:
                pids.append(int(directory.name))
    return pids


def reapers(project: Project) -> list[int]:
    """Return the process ids of this project's reapers."""
    return processes_with(f"{REAPER_MODULE}\0{project.state}/")


def becomes(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Return whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run_through(project: Project, prefix: list[str], *arguments: str, **more: str) -> Outcome:
    """Run the program with the command `prefix` before it."""
    done = subprocess.run(
        [*prefix, *project.command(*arguments)],
        cwd=project.root,
        env={**project.environment, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def unprivileged(project: Project, *arguments: str, **more: str) -> Outcome:
    """Run the program as root without the right to bypass permissions."""
    return run_through(project, ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"], *arguments, **more)
