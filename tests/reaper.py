"""End the private engines of a test session that was killed: this process outlives it, and waits for its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNTIME_DIRECTORY = Path("/run")
_REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def reap_engines_below(directory: Path) -> Iterator[int]:
    """Ensure that engines with their state below `directory` end soon after this process; yield the reaper's id."""
    command = [sys.executable, "-m", "tests.reaper", str(directory)]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, start_new_session=True) as reaper:
        yield reaper.pid  # its standard input ends with this process, or with the block


def list_engines_below(directory: Path) -> list[Path]:
    """Return the state directories of running engines."""
    links = (runtime / "state" for runtime in sorted(RUNTIME_DIRECTORY.glob("lyra-*")))
    states = (link.readlink() for link in links if link.is_symlink())
    return [state for state in states if state.is_relative_to(directory.resolve())]


def main(directory: Path) -> None:
    """Wait until the session has ended, and end what it has left."""
    sys.stdin.read()
    if states := list_engines_below(directory):
        from lyra_tasks.engine.sandbox import shut_down_sandbox

        for state in states:
            shut_down_sandbox(state, purge=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
