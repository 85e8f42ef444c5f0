"""What every fault test asks: the exit code, a message that names the thing, a hint, no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Outcome, Project, ours


def refused(outcome: Outcome, code: int, *said: str, hint: bool = True) -> None:
    """The command ended with `code`, said each of these on its way, and gave a hint; no traceback."""
    assert outcome.code == code, outcome.text
    assert no_traceback(outcome.text), outcome.text
    for each in said:
        assert each in outcome.text, f"{each!r} is not in:\n{outcome.text}"
    assert "error: " in outcome.err, outcome.text
    assert not hint or "hint: " in outcome.err, outcome.text


def no_traceback(text: str) -> bool:
    """Whether nobody sees a traceback; a socket that is not closed is warned of here alone (`-W error`)."""
    return "Traceback" not in re.sub(r"Exception ignored in: <socket.*?ResourceWarning: ", "", text, flags=re.DOTALL)


def labs(engine: Engine) -> list[str]:
    """What runs of `test` left in the engine; built images and bases are not theirs."""
    return [name for name in ours(engine) if name.startswith("lyra-")]


def processes_with(text: str) -> list[int]:
    """Running processes that have `text` in their arguments, this one left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                arguments = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in arguments:
                found.append(int(folder.name))
    return found


def becomes(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `condition` holds within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run_through(project: Project, prefix: list[str], *words: str, **more: str) -> Outcome:
    """Run the program through another one."""
    done = subprocess.run(
        [*prefix, *project.command(*words)],
        cwd=project.root,
        env={**project.environment, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def unprivileged(project: Project, *words: str, **more: str) -> Outcome:
    """Run the program as root that must keep to permissions."""
    return run_through(project, ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"], *words, **more)
